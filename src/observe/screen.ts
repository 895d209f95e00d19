/**
 * The end of a terminal: lines that renew themselves in place stay below whatever is printed. Each change is one write,
 * so that nothing flickers; between two writes the cursor stands below everything, so that any end is a clean one.
 */

export interface Terminal {
  readonly isTTY?: boolean;
  readonly columns?: number;
  readonly rows?: number;
  write(text: string): unknown;
}

const UP = (lines: number) => (lines === 0 ? '\r' : `\r\u001b[${lines}A`);
const CLEAR_LINE = '\u001b[K';
const CLEAR_BELOW = '\u001b[J';

export class Screen {
  readonly #terminal: Terminal;
  #shown: readonly string[] = [];

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
  }

  /** One less than there are: a character in the last column may begin a new line, or not. */
  get columns(): number {
    return Math.max(1, this.#width - 1);
  }

  /** Lines that fit beside what is printed. */
  get lines(): number {
    return Math.max(1, (this.#terminal.rows || 24) - 2);
  }

  /** Renews the lines at the end. They are to fit `columns` and `lines`. */
  show(lines: readonly string[]): void {
    const text = lines.map((line) => `${line}${CLEAR_LINE}\n`).join('');
    this.#terminal.write(`${this.#back()}${text}${CLEAR_BELOW}`);
    this.#shown = lines;
  }

  /** Prints text that ends with a line break above them. */
  print(text: string): void {
    if (this.#shown.length === 0) return void this.#terminal.write(text);
    const lines = this.#shown.map((line) => `${line}\n`).join('');
    this.#terminal.write(`${this.#back()}${CLEAR_BELOW}${text}${lines}`);
  }

  /** Takes the lines away. */
  clear(): void {
    if (this.#shown.length > 0) this.show([]);
  }

  /** A terminal that does not know its size says 0. */
  get #width(): number {
    return this.#terminal.columns || 80;
  }

  /** To the first of the lines. The terminal may have become narrower, and have wrapped them. */
  #back(): string {
    return UP(
      this.#shown.reduce((sum, line) => sum + Math.max(1, Math.ceil(widthOf(line) / this.#width)), 0),
    );
  }
}

/** What the log and the progress of a command write to. */
export const stderrScreen = new Screen(process.stderr);

const WIDE =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1f64f}\u{1f900}-\u{1f9ff}\u{20000}-\u{3fffd}]/u;

/** Columns that a text takes. */
export function widthOf(text: string): number {
  let width = 0;
  for (const character of text) width += /\p{M}/u.test(character) ? 0 : WIDE.test(character) ? 2 : 1;
  return width;
}

/** A text cut to a width, with `..` where something is missing. What would move the cursor is replaced. */
export function fitted(text: string, width: number): string {
  const plain = text.replace(/\p{C}/gu, '?');
  if (widthOf(plain) <= width) return plain;
  const dots = '..'.slice(0, width);
  let kept = '';
  for (const character of plain) {
    if (widthOf(kept + character) > width - dots.length) break;
    kept += character;
  }
  return kept + dots;
}
