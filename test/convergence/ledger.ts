/**
 * What the writers did, as they know it: every committed write with the write that it replaced, knowingly. From that
 * alone follows what was lost: a row that nobody replaced knowingly, and that is not there at the end.
 */
export interface Write {
  readonly table: string;
  /** The values of its key, as one text. */
  readonly key: string;
  readonly node: string;
  /** Of the row it made; of a deletion one that no row has. */
  readonly mark: string;
  /** The mark of the row that it replaced or deleted; null for an insert. */
  readonly replaced: string | null;
  readonly deletes: boolean;
  /** Rises from statement to statement; see `Ledger.turn`. */
  readonly turn: number;
}

/** A conflict as the record has it, by the marks of its rows; null stands for a row that is gone. */
export interface Recorded {
  readonly table: string;
  readonly key: string;
  readonly local: string | null;
  readonly incoming: string | null;
  readonly winner: string;
}

export class Ledger {
  readonly #writes: Write[] = [];
  #turns = 0;

  /**
   * To be drawn when a statement has been answered. Of two writers of one row the second is answered once the first has
   * committed, but may be told of its own commit before the first is told of its.
   */
  turn(): number {
    this.#turns += 1;
    return this.#turns;
  }

  /** Takes the writes of a transaction that was committed. */
  add(writes: readonly Write[]): void {
    this.#writes.push(...writes);
    this.#writes.sort((a, b) => a.turn - b.turn);
  }

  get size(): number {
    return this.#writes.length;
  }

  /** Every write, in words. */
  told(): string[] {
    return this.#writes.map((one) => `${told(one)} for ${one.replaced}`);
  }

  /**
   * The writes that were lost and of which the record says nothing.
   * `rows`: the marks at the end, by table and key.
   */
  unrecorded(rows: ReadonlyMap<string, string>, record: readonly Recorded[]): string[] {
    const replaced = new Set(this.#writes.map((write) => write.replaced));
    const last = new Map(this.#writes.map((write) => [`${write.node} ${placeOf(write)}`, write]));
    const lost = this.#writes.filter((write, i) =>
      write.deletes
        ? // What its own node wrote there afterwards it wrote knowing of the deletion.
          last.get(`${write.node} ${placeOf(write)}`) === write &&
          this.#outlived(write, rows) &&
          !this.#isFilled(write, i)
        : !replaced.has(write.mark) && rows.get(placeOf(write)) !== write.mark,
    );
    const recorded = new Set(record.flatMap(losers));
    return lost
      .filter((write) => !recorded.has(write.deletes ? gone(write) : write.mark))
      .map((write) => `${told(write)}; ${this.#storyOf(write, rows, record)}`);
  }

  /** What is known of the place, for whoever looks for the fault. */
  #storyOf(write: Write, rows: ReadonlyMap<string, string>, record: readonly Recorded[]): string {
    const here = (one: { readonly table: string; readonly key: string }) => placeOf(one) === placeOf(write);
    const writes = this.#writes.filter(here).map((one) => `${told(one)} for ${one.replaced}`);
    const records = record
      .filter((one) => here(one) || one.local === write.mark || one.incoming === write.mark)
      .map((one) => JSON.stringify(one));
    return [`at the end ${rows.get(placeOf(write))}`, ...writes, ...records].join('\n  ');
  }

  /** Another node has put a row where none was since: if that is lost, it is what the record has to name. */
  #isFilled(write: Write, i: number): boolean {
    return this.#writes
      .slice(i + 1)
      .some((one) => !one.deletes && one.replaced === null && placeOf(one) === placeOf(write));
  }

  /** The row that it deleted lives on in one that was made from it elsewhere. */
  #outlived({ replaced, ...write }: Write, rows: ReadonlyMap<string, string>): boolean {
    const byMark = new Map(this.#writes.map((one) => [one.mark, one]));
    for (let mark = rows.get(placeOf(write)) ?? null; mark !== null; ) {
      if (mark === replaced) return true;
      mark = byMark.get(mark)?.replaced ?? null;
    }
    return false;
  }
}

function told({ node, table, key, mark, deletes }: Write): string {
  return `${deletes ? 'deletion' : 'row'} ${mark} of ${node}, ${table} ${key}`;
}

export function placeOf({ table, key }: { readonly table: string; readonly key: string }): string {
  return `${table} ${key}`;
}

function gone(place: { readonly table: string; readonly key: string }): string {
  return `gone: ${placeOf(place)}`;
}

/** What did not win. A new row that took the place of both has both as losers. */
function losers(one: Recorded): string[] {
  const sides = [
    ...(one.winner === 'local' ? [] : [one.local]),
    ...(one.winner === 'incoming' ? [] : [one.incoming]),
  ];
  return sides.map((mark) => mark ?? gone(one));
}
