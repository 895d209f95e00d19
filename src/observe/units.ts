/** Bytes, counts and times as a person reads them. */

const BYTES = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** Such as `12.3 GiB`. */
export function bytesText(bytes: number): string {
  const power = unitOf(bytes);
  return `${inUnit(bytes, power)} ${BYTES[power]}`;
}

/** Such as `1.2 of 23.7 GiB`, both in the unit of the whole; `1.2 GiB` when that is not known. */
export function shareText(bytes: number, whole: number | null): string {
  if (whole === null) return bytesText(bytes);
  const power = unitOf(whole);
  return `${inUnit(bytes, power)} of ${inUnit(whole, power)} ${BYTES[power]}`;
}

function unitOf(bytes: number): number {
  const power = Math.floor(Math.log2(Math.max(bytes, 1)) / 10);
  // 1023.99 MiB is written as 1.0 GiB and not as 1024.0 MiB.
  const rounded = (bytes / 1024 ** power).toFixed(1) === '1024.0' ? power + 1 : power;
  return Math.min(rounded, BYTES.length - 1);
}

function inUnit(bytes: number, power: number): string {
  return (bytes / 1024 ** power).toFixed(power === 0 ? 0 : 1);
}

/** Such as `1,204,332`. */
export function countText(count: number): string {
  return String(Math.round(count)).replace(/\B(?=(\d{3})+$)/g, ',');
}

/** Such as `45 s`, `12 min`, `3 h 20 min`, `2 d 3 h`: rounded up, two units at most. */
export function timeText(seconds: number): string {
  const whole = Math.ceil(seconds);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.ceil(whole / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return minutes % 60 === 0 ? `${hours} h` : `${hours} h ${minutes % 60} min`;
  return hours % 24 === 0 ? `${hours / 24} d` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}
