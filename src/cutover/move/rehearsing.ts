/**
 * What a dry run leaves out is tried where it hurts nobody: the fence on a scratch database, with every kind of write on
 * every relation; and what follows the fence on the sides themselves, while the application writes. No fence is raised on
 * either of them.
 */
import { hurry } from '../../apply/live.ts';
import { liftFence, raiseFence, readFence, tryPlaceFence } from '../../capture/trigger/fence.ts';
import { registerSync } from '../../capture/trigger/registry.ts';
import { IbexError, isKind } from '../../core/errors.ts';
import type { TableInfo } from '../../core/table.ts';
import { FOREIGN_SCHEMAS } from '../../postgres/catalog.ts';
import { migrate } from '../../postgres/migrate.ts';
import { ident } from '../../postgres/quote.ts';
import { Session } from '../../postgres/session.ts';
import { captureAll } from '../../setup/capturing.ts';
import { stillWriting, waitForWriters } from './fencing.ts';
import { phase, readSpent } from './journal.ts';
import { HURRY_MS, type Move, nodesOf, type Phase, type Rehearsal } from './move.ts';
import { patiently } from './preparing.ts';
import { awaitEverything, carrySequences, compareBeside } from './proving.ts';
import { clean, copySchema, requireEmpty } from './scratch.ts';

/** What the application waits for before the comparison. */
const PAUSE: readonly Phase[] = ['writers', 'drain', 'sequences'];
/** How long the writer on the scratch database is waited for, who does not end. */
const STUBBORN_MS = 100;

/** Errors: `refused`, with what would stand against the move; `config` if the scratch database cannot be one. */
export async function rehearse(move: Move, url: string): Promise<Rehearsal> {
  const held = await onScratch(move, url);
  await phase(move, 'writers', () => awaitWriters(move));
  await hurry(move.record, move.sync.name, HURRY_MS);
  await phase(move, 'drain', async () => {
    const found = await awaitEverything(move);
    return { found, text: `the checkpoint ${found.applied} covers ${found.fence}, which was now` };
  });
  await phase(move, 'sequences', () => carrySequences(move));
  await phase(move, 'check', () => compareBeside(move));
  const spent = (phases: readonly Phase[]) => readSpent(move.record, move.sync.name, move.run, phases);
  return { ...held, pauseSeconds: await spent(PAUSE), checkSeconds: await spent(['check']) };
}

/** To be called before anything is done. Errors: those of the server; `config` unless it is empty, and neither of the sides. */
export async function requireScratch(move: Move, url: string): Promise<void> {
  await using scratch = await Session.open({ url, name: `ibex:${move.lane.name}:rehearsal` });
  await requireEmpty(move, scratch);
}

async function onScratch(move: Move, url: string) {
  const { lane } = move;
  await using scratch = await Session.open({ url, name: `ibex:${lane.name}:rehearsal` });
  await using application = await Session.open({ url, name: `rehearsal of ${lane.name}` });
  // As applications have it: our own sessions would rather fail than see a part of a table.
  await application.run('set row_security = on');
  const stays = await requireEmpty(move, scratch);
  try {
    const { tables } = await phase(move, 'scratch', () => copySchema(move, scratch, url));
    return await phase(move, 'fence', async () => {
      await placeFence(move, scratch, tables);
      const found = await tryFence(move, scratch, application);
      const text = `on ${scratch.server}: ${found.held} writes were kept off, and none once it was lifted`;
      return { found, text };
    });
  } finally {
    await clean(scratch, stays);
  }
}

async function placeFence(move: Move, scratch: Session, tables: readonly TableInfo[]): Promise<void> {
  const { lane, lockTimeoutMs } = move;
  await migrate(scratch, 'source');
  await registerSync(scratch, lane.name, 0);
  const [refused] = await captureAll(scratch, lane.name, tables);
  if (refused !== undefined) throw refused.error;
  await patiently(move, scratch, 'the fence', () => tryPlaceFence(scratch, lane.name, lockTimeoutMs));
}

/** Every kind of write, but those that a rule takes elsewhere, where there is no fence to meet. */
const READ_TRIES = `
  select format(k.template, r::regclass, a.name) as statement
    from ibex.fenced_relations($1) r
    left join lateral (select quote_ident(attname) as name from pg_attribute
                        where attrelid = r and attnum > 0 and not attisdropped order by attnum limit 1) a on true
    cross join (values ('3', 'insert into %s default values'), ('2', 'update %1$s set %2$s = default where false'),
                       ('4', 'delete from %s where false'), ('', 'truncate %s cascade')) k (event, template)
   where not exists (select from pg_rewrite w where w.ev_class = r and w.is_instead and w.ev_type::text = k.event)
     and (k.event <> '2' or a.name is not null)
   order by r::regclass::text, 1`;

/** Raises it over a writer, tries it, and lifts it by the statement that is shown to people. */
async function tryFence(move: Move, scratch: Session, application: Session) {
  const { lane } = move;
  const rows = await scratch.rows<{ statement: string }>(READ_TRIES, [lane.name]);
  const tries = rows.map(({ statement }) => statement);
  const harmless = tries.filter((statement) => statement.startsWith('delete'));
  const { ways, untried } = await waysToWrite(move, application);
  await expectAll(application, harmless, OWN, false);
  await raiseOverWriter(move, scratch, application, harmless[0]);
  for (const way of ways) await expectAll(application, tries, way, true);
  for (const node of nodesOf(move)) await expectAll(application, harmless, carrying(node), false);
  await liftFence(scratch, lane.name);
  await expectAll(application, harmless, OWN, false);
  return { held: tries.length * ways.length, ways: ways.map(({ name }) => name), untried };
}

/** As whom, or how, it is written. */
interface Way {
  readonly name: string;
  /** What its transactions begin with. */
  readonly begin: readonly string[];
}

const OWN: Way = { name: 'owner', begin: [] };
const REPLICA: Way = {
  name: 'owner, session_replication_role = replica',
  begin: ['set local session_replication_role = replica'],
};

/** A role with every right: it is to meet the fence, and nothing before it. */
function asRole(role: string, schemas: readonly string[]): Way {
  const grants = schemas.flatMap((schema) => [
    `grant usage on schema ${schema} to ${ident(role)}`,
    `grant all on all tables in schema ${schema} to ${ident(role)}`,
  ]);
  return { name: role, begin: [...grants, `set local role ${ident(role)}`] };
}

/** As a session that carries changes from this node. */
function carrying(node: string): Way {
  return { name: `the lane from ${node}`, begin: [`set local ibex.origin = ${ident(node)}`] };
}

/** Who else may log in and write on the live side; of superusers a sync knows that they write everywhere. */
const READ_ROLES = `
  select r.rolname::text as role from pg_roles r
   where r.rolcanlogin and not r.rolsuper and r.rolname <> current_user
     and exists (select from ibex.fenced_relations($1) f
                  where has_table_privilege(r.oid, f, 'insert, update, delete, truncate')
                     or has_any_column_privilege(r.oid, f, 'insert, update'))
   order by 1`;

const READ_SCHEMAS = 'select quote_ident(nspname) as schema from pg_namespace where nspname !~ $1 order by 1';

/** The roles of the live side that can be taken on there, and the owner, who stands for the one there. */
async function waysToWrite({ lane, old }: Move, application: Session) {
  const roles = await old.rows<{ role: string }>(READ_ROLES, [lane.name]);
  const can = (statement: string) =>
    application
      .rehearse(() => application.run(statement))
      .then(
        () => true,
        (error) => {
          if (isKind(error, 'connection')) throw error;
          return false;
        },
      );
  const schemas = (await application.rows<{ schema: string }>(READ_SCHEMAS, [FOREIGN_SCHEMAS])).map(
    ({ schema }) => schema,
  );
  const ways = [OWN];
  if (await can('set local session_replication_role = replica')) ways.push(REPLICA);
  const untried: string[] = [];
  for (const { role } of roles) {
    if (await can(`set local role ${ident(role)}`)) ways.push(asRole(role, schemas));
    else untried.push(role);
  }
  return { ways, untried };
}

/** Errors: `refused` unless each of them meets the fence, or none does. Nothing of it is kept. */
async function expectAll(
  application: Session,
  tries: readonly string[],
  way: Way,
  held: boolean,
): Promise<void> {
  await application.rehearse(async () => {
    for (const statement of way.begin) await application.run(statement);
    for (const statement of tries) {
      const error = await attempt(application, statement);
      if (held ? error?.message.includes(' is fenced: ') : error === null) continue;
      const what = error === null ? 'passed the fence' : `came to: ${error.message}`;
      throw new IbexError('refused', `${application.server}: ${statement}, as ${way.name}, ${what}`);
    }
  });
}

/** Null if it passes. */
async function attempt(application: Session, statement: string): Promise<IbexError | null> {
  await application.run('savepoint tried');
  try {
    await application.run(statement);
    return null;
  } catch (error) {
    if (!(error instanceof IbexError) || isKind(error, 'connection')) throw error;
    return error;
  } finally {
    if (application.broken === null) await application.run('rollback to tried');
  }
}

/** Somebody is writing as it goes up: he has to be found, and to be waited for. */
async function raiseOverWriter(
  move: Move,
  scratch: Session,
  application: Session,
  write: string | undefined,
): Promise<void> {
  const { lane } = move;
  await application.rehearse(async () => {
    if (write !== undefined) await application.run(write);
    await raiseFence(scratch, lane.name, nodesOf(move));
    const left = await waitForWriters({ ...move, graceMs: STUBBORN_MS }, scratch, lane.name);
    if (write !== undefined && left.length === 0)
      throw new IbexError('refused', `${scratch.server}: a session that was writing was not noticed`);
  });
  const left = await waitForWriters(move, scratch, lane.name);
  if (left.length > 0) throw stillWriting(scratch, left, move.graceMs);
  const { up, unfenced } = await readFence(scratch, lane.name);
  if (!up || unfenced.length > 0)
    throw new IbexError('refused', `${scratch.server}: the fence does not stand on ${unfenced.join(', ')}`);
}

/** Whoever is writing on the live side now is waited for as the fence would, and nobody is kept from writing. */
async function awaitWriters(move: Move) {
  const { old, lane, graceMs, terminate } = move;
  const left = await waitForWriters(move, old, lane.name);
  if (left.length > 0 && (!terminate || left.some(({ pid }) => pid === null)))
    throw stillWriting(old, left, graceMs);
  const ended = left.map(({ who }) => who).join(', ');
  const text = left.length === 0 ? 'whoever was writing had ended' : `would have been ended: ${ended}`;
  return { found: { writers: left.length }, text: `${old.server}: ${text}` };
}
