// Inputs made from good ones by damage: of bytes, and of what JSON says. The same seed gives the same inputs.

/** Uniform on [0, 1): mulberry32. */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** @param draw of `random` @param bytes Uint8Array, left as it is @returns a Buffer with one to eight damages */
export function damageBytes(draw, bytes) {
  let result = Buffer.from(bytes);
  const below = (n) => Math.floor(draw() * n);
  for (let count = 1 + below(8); count > 0 && result.length > 0; count--) {
    const at = below(result.length);
    const length = 1 + below(Math.min(64, result.length - at));
    const kinds = [
      () => (result[at] = below(256)),
      () => (result[at] ^= 1 << below(8)),
      () => (result = result.subarray(0, at)),
      () => (result = Buffer.concat([result.subarray(0, at), result.subarray(at + length)])),
      () => (result = Buffer.concat([result.subarray(0, at + length), result.subarray(at)])),
      () => result.fill(below(256), at, at + length),
      () => result.copy(result, below(result.length), at, at + length),
      () => {
        const numbers = ['0', '-1', '1e9', '9007199254740993', '1e999', '4294967296', 'null', '""'];
        const text = Buffer.from(numbers[below(numbers.length)]);
        result = Buffer.concat([result.subarray(0, at), text, result.subarray(at)]);
      },
    ];
    kinds[below(kinds.length)]();
  }
  return result;
}

const strangers = (draw) => {
  const values = [
    ...[0, -1, 1, 0.5, 2 ** 31, 2 ** 53, 1e300, -1e9, 7, 1000, 16_777_216],
    ...['', 'a', '../../etc/passwd', '__proto__', 'F32', '\u0000', '\ud800', 'x'.repeat(5000)],
    ...[null, true, false, [], {}, [[]], [0], [1e9], { a: {} }],
  ];
  if (draw() < 0.03) {
    let nested = 1;
    for (let depth = 0; depth < 400; depth++) nested = draw() < 0.5 ? [nested] : { a: nested };
    return nested;
  }
  if (draw() < 0.03) return Array.from({ length: 2000 }, () => 7);
  return structuredClone(values[Math.floor(draw() * values.length)]);
};

/** @param value JSON, left as it is @returns a copy in which one to four places hold, lack or repeat something else */
export function damageJson(draw, value) {
  let root = structuredClone(value);
  for (let count = 1 + Math.floor(draw() * 4); count > 0; count--) {
    const places = [];
    const walk = (node, depth) => {
      if (typeof node !== 'object' || node === null || depth > 8) return;
      for (const key of Object.keys(node)) {
        places.push([node, key]);
        walk(node[key], depth + 1);
      }
    };
    walk(root, 0);
    if (places.length === 0) return strangers(draw);
    const [node, key] = places[Math.floor(draw() * places.length)];
    const [other, otherKey] = places[Math.floor(draw() * places.length)];
    const kind = draw();
    if (kind < 0.5) node[key] = strangers(draw);
    else if (kind < 0.65 && Array.isArray(node)) node.splice(Number(key), 1);
    else if (kind < 0.65) delete node[key];
    else if (kind < 0.8) node[key] = structuredClone(other[otherKey]);
    else if (kind < 0.9 && typeof node[key] === 'number')
      node[key] *= [1e9, -1, 0.5, 2][Math.floor(draw() * 4)];
    else if (Array.isArray(node)) node.push(structuredClone(other[otherKey]));
    else node[`${key}${draw() < 0.5 ? '' : '_'}`] = strangers(draw);
  }
  return root;
}
