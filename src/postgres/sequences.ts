/** What the catalogs say about sequences, and where they stand: the same questions on either side. */
import { IbexError } from '../core/errors.ts';
import { type TableName, tableLabel } from '../core/plan.ts';
import type { SequenceState, SequenceValue } from '../core/sequence.ts';
import { FOREIGN_SCHEMAS } from './catalog.ts';
import { tableIdent } from './quote.ts';
import type { Session } from './session.ts';

export interface Sequence extends TableName {
  readonly increment: bigint;
  readonly min: bigint;
  readonly max: bigint;
  /** The column that it belongs to, identity columns included; of a partition's the partitioned table. */
  readonly owner: { readonly table: string; readonly column: string } | null;
  /** The role may read it, and set it. */
  readonly readable: boolean;
  readonly settable: boolean;
  /** The role that may, or may not. */
  readonly role: string;
}

const LIST_SEQUENCES = `
  select n.nspname as schema, c.relname as name,
         s.seqincrement::text as increment, s.seqmin::text as min, s.seqmax::text as max,
         has_schema_privilege(n.oid, 'USAGE') and has_sequence_privilege(c.oid, 'SELECT') as readable,
         has_schema_privilege(n.oid, 'USAGE') and has_sequence_privilege(c.oid, 'SELECT')
           and has_sequence_privilege(c.oid, 'UPDATE') as settable,
         current_user::text as role,
         (select json_build_object('schema', tn.nspname, 'name', t.relname, 'column', a.attname)
            from pg_depend d
            join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
            join pg_class t on t.oid = coalesce(pg_partition_root(d.refobjid)::oid, d.refobjid)
            join pg_namespace tn on tn.oid = t.relnamespace
           where d.classid = 'pg_class'::regclass and d.objid = c.oid
             and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i')) as owner
    from pg_sequence s join pg_class c on c.oid = s.seqrelid join pg_namespace n on n.oid = c.relnamespace
   where n.nspname !~ $1 and c.relpersistence <> 't'
     and not exists (select from pg_depend e
                      where e.classid = 'pg_class'::regclass and e.objid = c.oid and e.deptype = 'e')
   order by 1, 2`;

interface SequenceRow extends TableName {
  increment: string;
  min: string;
  max: string;
  readable: boolean;
  settable: boolean;
  role: string;
  owner: { schema: string; name: string; column: string } | null;
}

/** All sequences of the application, those behind identity columns included. */
export async function listSequences(session: Session): Promise<Sequence[]> {
  const rows = await session.rows<SequenceRow>(LIST_SEQUENCES, [FOREIGN_SCHEMAS]);
  return rows.map(({ owner, ...row }) => ({
    ...row,
    increment: BigInt(row.increment),
    min: BigInt(row.min),
    max: BigInt(row.max),
    owner: owner && { table: tableLabel(owner), column: owner.column },
  }));
}

/** So many are read by one statement: each of them is locked until it ends. */
const AT_ONCE = 500;
/** What others have locked exclusively (TRUNCATE .. RESTART IDENTITY in an open transaction) is not waited for. */
const LOCK_TIMEOUT = `set local lock_timeout = '100ms'`;

export interface SequenceStates {
  /** By label. One that was dropped meanwhile is in neither. */
  readonly states: ReadonlyMap<string, SequenceState>;
  /** Labels of those that others have locked. */
  readonly locked: readonly string[];
}

/** Where sequences stand. Not part of any snapshot, as sequences are not. */
export async function readSequences(
  session: Session,
  sequences: readonly Sequence[],
): Promise<SequenceStates> {
  const states = new Map<string, SequenceState>();
  const locked: string[] = [];
  const read = async (some: readonly Sequence[]): Promise<void> => {
    const rows = await tryRead(session, some);
    if (rows !== 'locked' && rows !== 'gone') for (const [label, state] of rows) states.set(label, state);
    else if (some.length > 1) for (const one of some) await read([one]);
    else if (rows === 'locked') locked.push(...some.map(tableLabel));
  };
  for (let first = 0; first < sequences.length; first += AT_ONCE) {
    await read(sequences.slice(first, first + AT_ONCE));
  }
  return { states, locked };
}

/** Null for one that has handed out nothing yet: then it tells its next value only to those who select from it. */
const LAST_VALUES = `
  select s.i, pg_sequence_last_value(format('%I.%I', s.schema, s.name)::regclass)::text as last, true as called
    from json_to_recordset($1) s(i int, schema text, name text)`;

function tryRead(session: Session, sequences: readonly Sequence[]) {
  return attempt(session, async () => {
    type Row = { i: number; last: string; called: boolean };
    const list = JSON.stringify(sequences.map(({ schema, name }, i) => ({ i, schema, name })));
    const rows = await session.rows<Row | (Row & { last: null })>(LAST_VALUES, [list]);
    const uncalled = rows.filter(({ last }) => last === null);
    const statements = uncalled.map(({ i }) => {
      const from = tableIdent(sequences[i] as Sequence);
      return `select ${i} as i, last_value::text as last, is_called as called from ${from}`;
    });
    const others = uncalled.length > 0 ? await session.rows<Row>(statements.join(' union all ')) : [];
    return [...rows.filter((row): row is Row => row.last !== null), ...others].map(({ i, last, called }) => {
      const one = sequences[i] as Sequence;
      return [tableLabel(one), { ...one, last: BigInt(last), called }] as const;
    });
  });
}

export interface SequenceSetting {
  readonly sequence: TableName;
  readonly value: SequenceValue;
}

const SET_SEQUENCES = `
  select setval(format('%I.%I', s.schema, s.name)::regclass, s.last, s.called)
    from json_to_recordset($1) s(schema text, name text, last int8, called bool)`;

/** Sets sequences, which no rollback undoes. Resolves to the labels of those that others have locked. */
export async function setSequences(
  session: Session,
  settings: readonly SequenceSetting[],
): Promise<readonly string[]> {
  const locked: string[] = [];
  const set = async (some: readonly SequenceSetting[]): Promise<void> => {
    const outcome = await trySet(session, some);
    if (some.length > 1 && typeof outcome === 'string') for (const one of some) await set([one]);
    else if (outcome === 'locked') locked.push(...some.map(({ sequence }) => tableLabel(sequence)));
  };
  for (let first = 0; first < settings.length; first += AT_ONCE) {
    await set(settings.slice(first, first + AT_ONCE));
  }
  return locked;
}

function trySet(session: Session, settings: readonly SequenceSetting[]) {
  const rows = settings.map(({ sequence: { schema, name }, value: { last, called } }) => ({
    ...{ schema, name, called },
    last: String(last),
  }));
  return attempt(session, () => session.run(SET_SEQUENCES, [JSON.stringify(rows)]));
}

async function attempt<T>(session: Session, work: () => Promise<T>): Promise<T | 'locked' | 'gone'> {
  try {
    return await session.transaction('', async () => {
      await session.run(LOCK_TIMEOUT);
      return work();
    });
  } catch (error) {
    if (!(error instanceof IbexError)) throw error;
    if (error.kind === 'lock') return 'locked';
    if (error.kind === 'schema_mismatch') return 'gone';
    throw error;
  }
}
