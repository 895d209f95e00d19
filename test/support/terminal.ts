/** A terminal, as far as tests need one. */

export const ESCAPE = '\u001b';
const CODES = new RegExp(`${ESCAPE}\\[(\\d*)[A-Z]|.`, 'gsu');

/** What a terminal shows after some output: it knows the few codes that are used, and wraps lines. */
export function shownBy(output: string, columns: number): string[] {
  const lines: string[] = [''];
  let [row, column] = [0, 0];
  for (const [code, count] of output.matchAll(CODES)) {
    const line = lines[row] ?? '';
    if (code === '\n') [row, column] = [row + 1, 0];
    else if (code === '\r') column = 0;
    else if (code.endsWith('A') && code.startsWith(ESCAPE)) row = Math.max(0, row - Number(count));
    else if (code === `${ESCAPE}[K`) lines[row] = line.slice(0, column);
    else if (code === `${ESCAPE}[J`) {
      lines[row] = line.slice(0, column);
      lines.length = row + 1;
    } else {
      if (column === columns) [row, column] = [row + 1, 0];
      const present = (lines[row] ?? '').padEnd(column);
      lines[row] = present.slice(0, column) + code + present.slice(column + 1);
      column++;
    }
    while (lines.length <= row) lines.push('');
  }
  return lines;
}
