/**
 * Does on a scratch table what a sync does, in a transaction that is rolled back: on the source the schema ibex is
 * made, the table captured and written to; on the target rows are merged, and what stands in the way is set aside.
 * The functions of the schema are at hand then, and say of the application's tables what setup will say.
 */
import { becomeReplica } from '../../apply/parking.ts';
import { carriedTable } from '../../capture/trigger/expressions.ts';
import { ruleOf } from '../../core/carry.ts';
import { IbexError } from '../../core/errors.ts';
import { keylessRefusal } from '../../core/keys.ts';
import { type CaptureMode, type CarryRule, tableLabel } from '../../core/plan.ts';
import { planTable } from '../../core/planner.ts';
import type { TableInfo } from '../../core/table.ts';
import { readTables } from '../../postgres/catalog.ts';
import { isInstalled, migrateHere } from '../../postgres/migrate.ts';
import type { Session } from '../../postgres/session.ts';
import { refusedTable } from '../../setup/refusal.ts';
import { withRemedy } from '../../setup/remedies.ts';
import { errorFinding, type Finding, info, warning } from './finding.ts';
import { failureOf, tryOut } from './patient.ts';

interface SourceOptions {
  readonly source: Session;
  readonly target: Session;
  readonly keyless: 'carry' | 'refuse';
  readonly carry: readonly CarryRule[];
  /** Those against which nothing is known yet. */
  readonly tables: readonly TableInfo[];
}

/** What setup, or the first run, would find on the source. */
export async function rehearseSource(options: SourceOptions): Promise<Finding[]> {
  const { source } = options;
  return tryOut(source, async () => {
    if (!(await isInstalled(source, 'source'))) {
      const installing = await failureOf(source, () => migrateHere(source, 'source'));
      if (installing !== null) return [refused('source', 'to install the schema ibex', installing)];
      const capturing = await failureOf(source, () => captureScratch(source));
      if (capturing !== null) return [refused('source', 'to capture a table and write to it', capturing)];
    }
    return judgeTables(options);
  });
}

function refused(side: 'source' | 'target', step: string, { message, hint }: IbexError): Finding {
  const what = `it was tried ${step}, and that was refused: ${message}`;
  return { severity: 'error', check: 'rehearsal', side, what, remedy: hint };
}

const SCRATCH = 'ibex_doctor.scratch';

/** Every operation has to leave its delta. */
async function captureScratch(source: Session): Promise<void> {
  await source.run('create schema ibex_doctor');
  await source.run(`create table ${SCRATCH} (id integer primary key, v text)`);
  const { delta } = await source.row<{ delta: string }>(
    `select format('ibex.delta_%s_1', $1::regclass::oid) as delta from ibex.capture($1::regclass)`,
    [SCRATCH],
  );
  await source.run('select ibex.arm($1::regclass, $1::regclass)', [SCRATCH]);
  await source.run(`insert into ${SCRATCH} values (1, 'a'), (2, 'b')`);
  await source.run(`update ${SCRATCH} set id = 3 where id = 1`);
  await source.run(`delete from ${SCRATCH} where id = 2`);
  await source.run(`truncate ${SCRATCH}`);
  const { noted } = await source.row<{ noted: string | null }>(
    `select string_agg(distinct op::text, '' order by op::text) as noted from ${delta}`,
  );
  if (noted === 'DITU') return;
  throw new IbexError(
    'unsupported',
    `of insert, update, delete and truncate only ${noted ?? 'none'} were noted`,
  );
}

interface Judgement {
  readonly refusal: string | null;
  readonly mode: CaptureMode | null;
  readonly columns: readonly string[] | null;
  readonly types: readonly string[] | null;
}

const JUDGE = `
  select ibex.refusal(t.relid::oid::regclass) as refusal, k.mode, k.columns, k.types
    from unnest($1::int8[]) with ordinality t(relid, n)
    left join lateral (select * from ibex.choose_key(t.relid::oid::regclass) limit 1) k on true
   order by t.n`;

/** By what the capture functions themselves say. */
async function judgeTables(options: SourceOptions): Promise<Finding[]> {
  const { source, target, tables } = options;
  const judgements = await source.rows<Judgement>(JUDGE, [tables.map(({ relid }) => relid)]);
  const counterparts = new Map((await readTables(target, tables)).map((table) => [tableLabel(table), table]));
  const findings: Finding[] = [];
  for (const [i, table] of tables.entries()) {
    const judgement = judgements[i] as Judgement;
    const error = await faultOf(options, table, judgement, counterparts.get(tableLabel(table)));
    if (error !== null) findings.push(errorFinding('table', 'both', error));
    else if (judgement.mode === 'row') findings.push(keyless(table));
  }
  return findings;
}

async function faultOf(
  { source, target, keyless, carry }: SourceOptions,
  table: TableInfo,
  { refusal, mode, columns, types }: Judgement,
  counterpart: TableInfo | undefined,
): Promise<IbexError | null> {
  if (refusal !== null) return refusedTable(table, refusal);
  if (mode === 'row' && keyless === 'refuse') return keylessRefusal(table);
  const carried = await carriedTable(source, table, ruleOf(carry, table));
  if (carried instanceof IbexError) return carried;
  try {
    const noted = {
      mode: mode ?? 'row',
      noted: columns ?? [],
      notedTypes: types ?? [],
      outline: '',
    } as const;
    planTable({ ...carried, ...noted }, counterpart);
    return null;
  } catch (error) {
    if (!(error instanceof IbexError) || error.table === undefined) throw error;
    return withRemedy(source, target, { ...table, carried: null }, error);
  }
}

function keyless(table: TableInfo): Finding {
  const label = tableLabel(table);
  return warning(
    'no-key',
    'source',
    `${label} has no primary key, replica identity or unique index of NOT NULL columns`,
    `Give it a primary key on both sides, or leave it out: --exclude '${label}'.`,
  );
}

/** Steps on the target, each as a person would name it. */
const STEPS: readonly (readonly [step: string, statements: readonly string[]])[] = [
  [
    'to make tables with a foreign key, a trigger and an index',
    [
      'create schema ibex_doctor',
      'create table ibex_doctor.parent (id integer primary key)',
      'create table ibex_doctor.child (id bigint generated always as identity primary key, parent integer, v text)',
      'alter table ibex_doctor.child add constraint tie foreign key (parent) references ibex_doctor.parent',
      'create index by_v on ibex_doctor.child (v)',
      `create function ibex_doctor.fired() returns trigger language plpgsql as $$ begin return null; end $$`,
      'create trigger fires before insert on ibex_doctor.child for each row execute function ibex_doctor.fired()',
    ],
  ],
  [
    'to set aside trigger, foreign key and index',
    [
      'alter table ibex_doctor.child disable trigger fires',
      'alter table ibex_doctor.child drop constraint tie',
      'drop index ibex_doctor.by_v',
    ],
  ],
  [
    'to write rows by way of a temporary table',
    [
      'create temporary table ibex_doctor_stage (id bigint, parent integer, v text) on commit drop',
      `insert into pg_temp.ibex_doctor_stage values (1, 1, 'a')`,
      'insert into ibex_doctor.parent values (1)',
      'insert into ibex_doctor.child (id, parent, v) overriding system value select * from pg_temp.ibex_doctor_stage ' +
        'on conflict (id) do update set v = excluded.v',
      `update ibex_doctor.child set v = 'b' where id = 1`,
    ],
  ],
  [
    'to put them back',
    [
      'alter table ibex_doctor.child add constraint tie foreign key (parent) references ibex_doctor.parent not valid',
      'alter table ibex_doctor.child validate constraint tie',
      'alter table ibex_doctor.child enable trigger fires',
      'create index by_v on ibex_doctor.child (v)',
      'analyze ibex_doctor.child',
    ],
  ],
  ['to delete and truncate', ['delete from ibex_doctor.child', 'truncate ibex_doctor.child']],
];

/** What applying rows would find on the target. */
export async function rehearseTarget(target: Session): Promise<Finding[]> {
  return tryOut(target, async () => {
    if (!(await isInstalled(target, 'target'))) {
      const failure = await failureOf(target, () => migrateHere(target, 'target'));
      if (failure !== null) return [refused('target', 'to install the schema ibex', failure)];
    }
    for (const [step, statements] of STEPS) {
      const failure = await failureOf(target, async () => {
        for (const statement of statements) await target.run(statement);
      });
      // What comes after stands on it.
      if (failure !== null) return [refused('target', step, failure)];
    }
    return [];
  });
}

/** Whether the role may be a replica; the session is one from then on. */
export async function probeReplica(target: Session): Promise<{ replica: boolean; findings: Finding[] }> {
  const replica = await becomeReplica(target);
  const what = replica
    ? 'the role may set session_replication_role: triggers and foreign keys of the target do not fire for Ibex'
    : 'the role may not set session_replication_role: triggers, rules and foreign keys are set aside by name';
  return { replica, findings: [info('replica', 'target', what)] };
}
