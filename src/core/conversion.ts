/**
 * Which values arrive as they are. A value is the text that its output function gives, so a pair of types carries
 * when the target's input function makes of every such text a value with the same text, or raises an error. A pair
 * that could round, pad, cut or rewrite in silence does not. Pure, and tested case by case.
 */
import type { TypeInfo } from './table.ts';

/** The form in which every value has the same meaning on every server. */
export const TEXT = 'pg_catalog.text';

/** Decimal digits of what an integer type holds. */
const INTEGERS: Readonly<Record<string, number>> = { int2: 5, int4: 10, int8: 19 };

/** Typmods that are a length or a number of digits: more of it holds all that less of it holds. */
const WIDENING = new Set(['varchar', 'varbit', 'time', 'timetz', 'timestamp', 'timestamptz']);
/** Types of which no typmod means six decimal digits of a second. */
const SECONDS = new Set(['time', 'timetz', 'timestamp', 'timestamptz']);

/** Whether every value of the source's type arrives as it is in the target's, or else raises an error there. */
export function carries(source: TypeInfo, target: TypeInfo): boolean {
  if (!target.readable) return false;
  // XML has two texts, of which its output function gives the shorter one.
  if (isUnlimitedText(target)) return source.identity !== 'xml';
  // A label that the target's enum lacks is an error.
  if (target.kind === 'enum') return source.kind === 'enum' || isText(source);
  const digits = INTEGERS[source.identity];
  if (digits !== undefined && target.identity in INTEGERS) return digits <= (INTEGERS[target.identity] ?? 0);
  if (digits !== undefined && target.identity === 'numeric') return holdsInteger(target, digits);
  // JSON is kept as it is written, and so is what JSONB writes.
  if (source.identity === 'jsonb' && target.identity === 'json') return true;
  if (source.identity !== target.identity) return isWiderArray(source, target);
  return holdsTypmod(source, target) && partsCarry(source, target);
}

/** Whether a value can travel in binary form: both sides must take the same bytes for the same value. */
export function travelsBinary(source: TypeInfo, target: TypeInfo): boolean {
  if (source.binary === null || target.binary === null) return false;
  return source.identity === target.identity && source.binary <= target.binary;
}

/** Whether both are integers, which travel as int8 when they are noted as such. */
export function bothIntegers(source: TypeInfo, target: TypeInfo): boolean {
  return source.identity in INTEGERS && target.identity in INTEGERS;
}

/**
 * Whether text of one encoding can be told in the other. In SQL_ASCII nobody knows what the bytes mean: they are
 * carried byte by byte, and what is no UTF-8 is refused by a target that is in UTF-8.
 */
export function encodingsAgree(source: string, target: string): boolean {
  if (source !== 'SQL_ASCII' && target !== 'SQL_ASCII') return true;
  return [source, target].every((encoding) => encoding === 'SQL_ASCII' || encoding === 'UTF8');
}

function isText({ identity }: TypeInfo): boolean {
  return identity === 'text' || identity === 'varchar' || identity === 'extension citext.citext';
}

function isUnlimitedText(type: TypeInfo): boolean {
  return isText(type) && type.typmod === -1;
}

/** Of elements that every array writes alike; between boxes, say, there are semicolons. */
function isWiderArray(source: TypeInfo, target: TypeInfo): boolean {
  if (source.kind !== 'array' || target.kind !== 'array') return false;
  const plain = source.parts.every(
    ({ type }) => type.identity in INTEGERS || isText(type) || type.kind === 'enum',
  );
  return plain && partsCarry(source, target);
}

function partsCarry(source: TypeInfo, target: TypeInfo): boolean {
  if (source.parts.length !== target.parts.length) return false;
  return source.parts.every((part, i) => {
    const counterpart = target.parts[i];
    return counterpart?.name === part.name && carries(part.type, counterpart.type);
  });
}

function holdsTypmod(source: TypeInfo, target: TypeInfo): boolean {
  if (target.typmod === -1 || target.typmod === source.typmod) return true;
  // The typmod of an array is that of its elements, which are looked at themselves.
  if (source.kind === 'array') return true;
  const { identity } = source;
  if (identity === 'numeric' && source.typmod !== -1) return holdsDigits(source, target);
  if (!WIDENING.has(identity)) return false;
  if (source.typmod === -1) return SECONDS.has(identity) && target.typmod === 6;
  return target.typmod > source.typmod;
}

/** With another scale 1.5 would read 1.50, or be rounded. */
function holdsDigits(source: TypeInfo, target: TypeInfo): boolean {
  return scaleOf(target) === scaleOf(source) && precisionOf(target) >= precisionOf(source);
}

function holdsInteger(numeric: TypeInfo, digits: number): boolean {
  return numeric.typmod === -1 || (scaleOf(numeric) === 0 && precisionOf(numeric) >= digits);
}

/** NUMERIC's typmod: the precision in the upper bits, the scale in eleven lower ones, signed, both plus four. */
function precisionOf({ typmod }: TypeInfo): number {
  return (typmod - 4) >> 16;
}

function scaleOf({ typmod }: TypeInfo): number {
  return (((typmod - 4) & 0x7ff) ^ 1024) - 1024;
}
