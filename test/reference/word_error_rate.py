"""Writes fixtures/reference/word-error-rate.json: word error rates as jiwer computes them.

    pip install jiwer==4.0.0 && python test/reference/word_error_rate.py
"""

import json
import random
from pathlib import Path

import jiwer

OUT = Path(__file__).resolve().parents[2] / "fixtures" / "reference" / "word-error-rate.json"
WORDS = "zero one two three four five six seven eight nine".split()

SPLIT = [jiwer.RemoveMultipleSpaces(), jiwer.Strip(), jiwer.ReduceToListOfListOfWords()]
KINDS = {
    "as they are": dict(options=dict(ignoreCase=False, ignorePunctuation=False), transform=[]),
    "without case": dict(options=dict(ignoreCase=True, ignorePunctuation=False), transform=[jiwer.ToLowerCase()]),
    "without punctuation": dict(
        options=dict(ignoreCase=False, ignorePunctuation=True), transform=[jiwer.RemovePunctuation()]
    ),
    "without both": dict(
        options=dict(ignoreCase=True, ignorePunctuation=True),
        transform=[jiwer.ToLowerCase(), jiwer.RemovePunctuation()],
    ),
}

WRITTEN = [
    ("Hello, world!", "hello world"),
    ("don't stop", "dont  stop"),
    ("3 + 4 = 7", "3 4 7"),
    ("ÜBER allen Gipfeln", "über allen gipfeln ist Ruh"),
    ("a well-known fact", "a well known fact"),
    ("“quoted” — and dashed…", "quoted and dashed"),
    ("one two three", ""),
    ("one", "one one one one"),
    ("  spaces   at the ends ", "spaces at the end"),
]


def noisy(rng, words):
    """Words with some left out, exchanged and added, some in capitals or with a comma."""
    heard = []
    for word in words:
        draw = rng.random()
        if draw < 0.1:
            continue
        heard.append(rng.choice(WORDS) if draw < 0.25 else word)
        if rng.random() < 0.1:
            heard.append(rng.choice(WORDS))
    return " ".join(rng.choice([w, w, w.upper(), w + ","]) for w in heard)


def main():
    rng = random.Random(0)
    pairs = list(WRITTEN)
    for _ in range(60):
        words = rng.choices(WORDS, k=rng.randint(1, 12))
        pairs.append((" ".join(words), noisy(rng, words)))
    rates = []
    for name, kind in KINDS.items():
        transform = jiwer.Compose([*kind["transform"], *SPLIT])
        args = dict(reference_transform=transform, hypothesis_transform=transform)
        rate = lambda some: jiwer.wer([a for a, _ in some], [b for _, b in some], **args)
        rates.append({"name": name, "options": kind["options"], "whole": rate(pairs), "each": [rate([p]) for p in pairs]})
    OUT.write_text(json.dumps({"pairs": pairs, "rates": rates}, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(OUT, [(r["name"], round(r["whole"], 4)) for r in rates])


if __name__ == "__main__":
    main()
