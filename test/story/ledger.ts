/**
 * What the application remembers of what it was promised, and what it holds the database to: every operation that was
 * confirmed is there exactly once, nothing else is, no number was given out twice, and no money came or went.
 */
import type pg from 'pg';
import type { Role, Side } from './stage.ts';

const ACCOUNTS = 200;
const BALANCE = 1_000;

export interface Refusal {
  readonly at: number;
  readonly role: Role;
  readonly side: Side;
  readonly code: string;
  readonly message: string;
}

/** Of an operation: the numbers that sequences gave out for it, by what drew them. */
export type Drawn = readonly { readonly from: string; readonly value: string }[];

export class Ledger {
  /** By the id of the operation, when it was confirmed and where. */
  readonly confirmed = new Map<string, { readonly at: number; readonly side: Side }>();
  /** What the application was told instead of being served. */
  readonly refusals: Refusal[] = [];
  /** What nobody should ever see, in words. */
  readonly wrong: string[] = [];
  readonly #drawn = new Map<string, Set<string>>();

  confirm(id: string, side: Side, drawn: Drawn): void {
    this.confirmed.set(id, { at: performance.now(), side });
    for (const { from, value } of drawn) {
      const before = this.#drawn.get(from) ?? new Set();
      if (before.has(value)) this.wrong.push(`${from} gave out ${value} twice`);
      this.#drawn.set(from, before.add(value));
    }
  }

  refuse(role: Role, side: Side, error: unknown): void {
    const { code = '', message } = error as { code?: string; message: string };
    this.refusals.push({ at: performance.now(), role, side, code, message });
  }

  /** The last so many that were confirmed. */
  last(count: number): string[] {
    return [...this.confirmed.keys()].slice(-count);
  }

  /** The milliseconds between the last confirmation on one side and the first one on the other, of the latest change. */
  pause(to: Side): number {
    const all = [...this.confirmed.values()];
    const last = all.findLastIndex(({ side }) => side !== to);
    const [before, after] = [all[last], all[last + 1]];
    if (before === undefined || after === undefined) throw new Error(`nothing was written on the ${to}`);
    return after.at - before.at;
  }

  /** What is wrong with the books of a side, on which nobody writes meanwhile; nothing when they are right. */
  async audit(client: pg.Client): Promise<string[]> {
    const wrong: string[] = [];
    for (const question of [BALANCES, TRAIL]) {
      const { rows } = await client.query<{ wrong: string }>(question);
      wrong.push(...rows.map((row) => row.wrong));
    }
    const { rows } = await client.query<{ id: string }>('select id::text from bank.operation');
    const there = new Set(rows.map(({ id }) => id));
    const lost = [...this.confirmed.keys()].filter((id) => !there.has(id));
    const strange = [...there].filter((id) => !this.confirmed.has(id));
    if (lost.length > 0) wrong.push(`${lost.length} confirmed operations are lost, such as ${lost[0]}`);
    if (strange.length > 0) wrong.push(`${strange.length} operations that nobody did, such as ${strange[0]}`);
    return [...wrong, ...this.wrong];
  }
}

/** What everybody may ask at any time of a side: in every snapshot the money is all there. */
export const MONEY = 'select sum(balance)::int as sum from bank.account';
export const ALL_MONEY = ACCOUNTS * BALANCE;

const BALANCES = `
  select format('account %s has %s after %s transfers, not %s after %s', a.id, a.balance, a.version,
                ${BALANCE} + coalesce(t.sum, 0), coalesce(t.count, 0)) as wrong
    from bank.account a left join (
      select id, sum(amount), count(*)
        from (select payer as id, -amount as amount from bank.transfer union all select payee, amount from bank.transfer) booked
       group by id) t using (id)
   where (a.balance, a.version) <> (${BALANCE} + coalesce(t.sum, 0), coalesce(t.count, 0))
  union all
  select format('the balances sum to %s', sum(balance)) from bank.account having sum(balance) <> ${ALL_MONEY}`;

const TRAIL = `
  select format('operation %s has %s entries in the trail', operation, count(t.*)) as wrong
    from (select id as operation from bank.operation) o full join bank.trail t using (operation)
   group by operation having count(t.*) <> 1`;
