// Types of Arrow columns in the words that Parquet's have (see `parseType`).

import { DataType, Precision, type Schema } from 'apache-arrow';
import { DataError } from '../errors.js';
import type { ColumnType } from './parquet-schema.js';

/** @throws {DataError} when two columns have one name */
export function columnTypes(schema: Schema, path: string): Map<string, ColumnType> {
  const types = new Map<string, ColumnType>();
  for (const { name, type } of fieldsOf(schema.fields)) {
    if (types.has(name)) {
      throw new DataError({
        where: `${path}, column ${name}`,
        expected: 'one column of that name',
        received: 'two',
        remedy: 'rename one of them',
      });
    }
    types.set(name, columnType(type));
  }
  return types;
}

function columnType(type: DataType): ColumnType {
  if (DataType.isDictionary(type)) return columnType(type.dictionary as DataType);
  if (DataType.isMap(type)) return { name: 'map', items: memberTypes(membersOf(type)[0]!.type) };
  if (DataType.isList(type) || DataType.isLargeList(type) || DataType.isFixedSizeList(type)) {
    return { name: 'list', items: memberTypes(type) };
  }
  if (DataType.isStruct(type)) {
    const fields = membersOf(type).map((field) => [field.name, columnType(field.type)] as const);
    return { name: 'struct', fields: Object.fromEntries(fields) };
  }
  if (DataType.isUnion(type)) return { name: 'union', items: memberTypes(type) };
  return { name: primitiveName(type) };
}

function memberTypes(type: DataType): ColumnType[] {
  return membersOf(type).map((member) => columnType(member.type));
}

/** A field as this code sees it: the library's types say `any` where they nest. */
export interface Member {
  readonly name: string;
  readonly type: DataType;
}

/** The fields in a type: a struct's, a union's, a list's one. */
export function membersOf(type: DataType): readonly Member[] {
  return fieldsOf((type.children ?? []) as readonly Member[]);
}

export function fieldsOf(fields: readonly unknown[]): readonly Member[] {
  return fields as readonly Member[];
}

function primitiveName(type: DataType): string {
  if (DataType.isInt(type)) return `${type.isSigned ? '' : 'u'}int${type.bitWidth}`;
  if (DataType.isFloat(type)) {
    return { [Precision.HALF]: 'float16', [Precision.SINGLE]: 'float32', [Precision.DOUBLE]: 'float64' }[
      type.precision
    ];
  }
  if (DataType.isUtf8(type) || DataType.isLargeUtf8(type) || DataType.isUtf8View(type)) return 'string';
  if (
    DataType.isBinary(type) ||
    DataType.isLargeBinary(type) ||
    DataType.isBinaryView(type) ||
    DataType.isFixedSizeBinary(type)
  ) {
    return 'binary';
  }
  if (DataType.isNull(type)) return 'null';
  if (DataType.isBool(type)) return 'bool';
  if (DataType.isDecimal(type)) return 'decimal';
  if (DataType.isDate(type)) return 'date';
  if (DataType.isTime(type)) return 'time';
  if (DataType.isTimestamp(type)) return 'timestamp';
  if (DataType.isDuration(type)) return 'duration';
  return 'unsupported';
}
