/**
 * One application on two databases, of which only the first is captured: the same statements in the same order, and
 * the same answers. Where only the captured one refuses, because of a lock, the transaction is tried again on both.
 */
import type pg from 'pg';
import type { Step } from './picks.ts';

/** Lock not available, deadlock, cancelled by a time-out. */
const LOCKED = /^(55P03|40P01|57014)$/;
const TRIES = 5;

type Answer = { readonly code: string; readonly message: string };
const FINE: Answer = { code: 'fine', message: '' };

export class Twins {
  readonly #captured: pg.Client;
  readonly #plain: pg.Client;
  readonly transcript: string[] = [];

  constructor(captured: pg.Client, plain: pg.Client) {
    this.#captured = captured;
    this.#plain = plain;
  }

  /**
   * One transaction, or a statement outside of any. `next` gives its steps, each after the one before was done, and
   * null at its end. Resolves to the steps that were committed. Throws when the answers differ.
   */
  async transaction(next: () => Promise<Step | null>): Promise<Step[]> {
    const steps: Step[] = [];
    await this.#both('begin');
    for (let step = await next(); step !== null; step = await next()) {
      steps.push(step);
      const code = await this.#compare(step.sql, steps);
      if (code === 'fine') continue;
      await this.#both('rollback');
      return [];
    }
    const code = await this.#compare('commit', steps);
    return code === 'fine' ? steps : [];
  }

  async alone(step: Step): Promise<Step[]> {
    return (await this.#compare(step.sql, null)) === 'fine' ? [step] : [];
  }

  /** `inside`: the steps of the transaction so far, this one the last of them. */
  async #compare(sql: string, inside: readonly Step[] | null): Promise<string> {
    const [plain, captured] = await this.#both(sql);
    this.transcript.push(`${sql};${plain.code === 'fine' ? '' : `  -- ${plain.code} ${plain.message}`}`);
    if (captured.code === plain.code) return plain.code;
    const answer = LOCKED.test(captured.code) ? await this.#again(sql, inside, plain) : captured;
    if (answer.code === plain.code) return plain.code;
    throw new Error(
      `with capture: ${answer.code} ${answer.message}; without: ${plain.code} ${plain.message}; statement: ${sql}`,
    );
  }

  /** Only on the captured side: the other has done what it was told. */
  async #again(sql: string, inside: readonly Step[] | null, expected: Answer): Promise<Answer> {
    let answer = FINE;
    for (let attempt = 1; attempt <= TRIES; attempt++) {
      this.transcript.push(`-- once more, for a lock`);
      if (inside !== null) {
        await this.#captured.query('rollback');
        await this.#captured.query('begin');
      }
      const replayed = inside === null ? [] : inside.map((step) => step.sql);
      const all = replayed.at(-1) === sql ? replayed : [...replayed, sql];
      for (const statement of all) {
        answer = await ask(this.#captured, statement);
        if (answer.code !== 'fine') break;
      }
      if (answer.code === expected.code || !LOCKED.test(answer.code)) return answer;
    }
    return answer;
  }

  async #both(sql: string): Promise<[plain: Answer, captured: Answer]> {
    return [await ask(this.#plain, sql), await ask(this.#captured, sql)];
  }
}

async function ask(client: pg.Client, sql: string): Promise<Answer> {
  try {
    await client.query(sql);
    return FINE;
  } catch (error) {
    const { code = '?', message } = error as pg.DatabaseError;
    return { code, message };
  }
}
