/**
 * Opens everything that one incarnation of a sync works with, in the order that is safe: both sides looked at and
 * set up, the lane taken, the position checked against the source, then the rooms put together.
 */
import { type AppliedBatch, Applier } from '../apply/applier.ts';
import { becomeReplica } from '../apply/parking.ts';
import { keepValidStages } from '../apply/stages.ts';
import { readRecord, readSyncTables, requestCopy, startLane } from '../apply/state.ts';
import { DeltaReader } from '../capture/trigger/reader.ts';
import { readLastingSnapshot, readSnapshot } from '../capture/trigger/registry.ts';
import { Settling } from '../conflict/settling.ts';
import { failpoint } from '../core/failpoints.ts';
import { tableLabel } from '../core/plan.ts';
import type { BatchQueue, ChunkQueue } from '../core/ports.ts';
import { covers, type Snapshot } from '../core/position.ts';
import { readIdentity } from '../postgres/catalog.ts';
import { migrate } from '../postgres/migrate.ts';
import type { Session } from '../postgres/session.ts';
import { remarkOn } from '../postgres/tls.ts';
import { installGuard, tendGuard } from '../setup/guarding.ts';
import { inspect, install, type SetupResult } from '../setup/setup.ts';
import { Bell } from './bell.ts';
import type { Brake } from './brake.ts';
import { CopySessions } from './copy-sessions.ts';
import { answerDrift } from './drift.ts';
import { fitTables } from './fitting.ts';
import { Lane } from './lane.ts';
import { Lease } from './lease.ts';
import { MergeReport } from './merge-report.ts';
import type { IncarnationOptions } from './options.ts';
import type { Roster } from './roster.ts';
import type { Sessions } from './sessions.ts';
import { holdSource } from './source-hold.ts';
import { Staging } from './staging.ts';
import { StagingLog } from './staging-log.ts';
import { TargetWatch } from './target-watch.ts';
import { requireTurn } from './turn.ts';

export interface Rooms {
  readonly lease: Lease;
  readonly lane: Lane;
  readonly applier: Applier;
  readonly queue: BatchQueue;
  readonly chunks: ChunkQueue;
  /** The sessions of the backfill. */
  readonly pairs: CopySessions;
  /** For looking after things, beside the flow. */
  readonly source: Session;
  readonly target: Session;
  readonly watch: TargetWatch;
  readonly merges: MergeReport;
  readonly brake: Brake;
  /** The target's role may set session_replication_role: nothing has to be parked. */
  readonly replica: boolean;
  /** The source's snapshot at the start: what `caught-up` waits for. */
  readonly goal: Snapshot;
  /** Rings when what a run waits for may have come. */
  readonly news: Bell;
}

export interface RoomsContext {
  readonly options: IncarnationOptions;
  readonly sessions: Sessions;
  readonly roster: Roster;
  readonly brake: Brake;
  readonly signal: AbortSignal;
  readonly onApplied: (batch: AppliedBatch) => void;
  readonly onPosition: (position: Snapshot) => void;
}

export async function openRooms(context: RoomsContext): Promise<Rooms> {
  const { options, roster, brake } = context;
  const { sync, log } = options;
  const { source, target, apply, copySource, copyTarget, reading, flush, holder } =
    await openSessions(context);
  for (const { server, peer } of [source, target]) {
    const remark = remarkOn(peer);
    if (remark !== null) log.warn(`${server}: ${remark}`);
  }
  const replica = await becomeReplica(apply);
  if (replica) await becomeReplica(copyTarget);
  const goal = await readSnapshot(source);
  const lease = await setUp(context, source, target, holder, replica);
  const identity = await readIdentity(source);
  const start = await startPosition(context, source, target, lease);
  const watch = new TargetWatch(sync.name);
  await answerDriftNow(context, source, target);
  await watch.note(target);
  await roster.refresh(source, target);
  await noteGivenUp(context, source, target);
  await requireDeltas(context, source, target, start);
  await fitTables({ source, target, sync: sync.name, roster, watch, rules: sync.carry, start, log });
  const stages = await keepValidStages(target, sync.name);
  const merges = new MergeReport(sync.name, log, options.metrics);
  const applier = new Applier({
    session: apply,
    origin: sync.source.name,
    replica,
    settling: settlingOf(options),
    large: stages.map(({ relid }) => relid),
    onApplied: context.onApplied,
    onMerging: (progress) => merges.note(progress),
  });
  failpoint('lane-taken');
  await brake.lookAtRecord(target);
  const { queue, chunks } = await openQueues(options);
  const first = { source: copySource, target: copyTarget };
  const { jobs, maxSourceConnections } = options.copying;
  const pairs = new CopySessions({
    sync: sync.name,
    sessions: context.sessions,
    first,
    control: source,
    part: 'copy',
    jobs,
    maxSourceConnections,
    replica,
    log,
  });
  const { spoolDirectory } = options;
  const reader = new DeltaReader({ reading, control: flush, identity, queue, spoolDirectory });
  const news = new Bell();
  const stagingLog = new StagingLog(sync.name, log, options.metrics);
  const lane = new Lane({
    sync: sync.name,
    epoch: lease.epoch,
    start,
    counterpart: sync.rivalry?.counterpart ?? null,
    shared: sync.rivalry !== null || sync.guard !== null,
    reader,
    roster: () => roster.tables,
    isDue: options.isDue,
    isPaused: () => brake.paused !== null,
    staging: new Staging(options.stageAbove, stages),
    onApplied: (position, joined) => {
      context.onPosition(position);
      if (joined || (options.until.kind === 'caught-up' && covers(position, goal))) news.ring();
    },
    onStaged: (plan, progress) => stagingLog.note(plan, progress),
  });
  log.info({ epoch: lease.epoch, queue: queue.kind, replica }, `sync ${sync.name} runs`);
  const shared = { applier, source, target, watch, merges, brake, replica, goal, news };
  return { lease, lane, queue, chunks, pairs, ...shared };
}

/** What decides where others write the target too; null where nobody does. */
function settlingOf({ sync }: IncarnationOptions): Settling | null {
  const { guard, source, target } = sync;
  const rivalry = sync.rivalry ?? guard;
  const sides = { local: target.name, incoming: source.name, guard: guard !== null };
  return rivalry && new Settling({ rivalry, ...sides });
}

/** All at once: what each waits for is mostly the network. */
async function openSessions({ sessions }: RoomsContext) {
  const [source, copySource, reading, flush, target, apply, copyTarget, holder] = await Promise.all([
    sessions.open('source', 'control'),
    sessions.open('source', 'copy'),
    sessions.open('source', 'read'),
    sessions.open('source', 'flush'),
    sessions.open('target', 'control'),
    sessions.open('target', 'apply'),
    sessions.open('target', 'copy'),
    sessions.open('target', 'lease'),
  ]);
  return { source, copySource, reading, flush, target, apply, copyTarget, holder };
}

async function openQueues({ createQueue, createChunkQueue }: IncarnationOptions) {
  const queue = await createQueue();
  try {
    await queue.clear();
    return { queue, chunks: await createChunkQueue() };
  } catch (error) {
    await queue.close();
    throw error;
  }
}

/** Takes the lane, then sets up: a daemon that is refused has changed nothing. */
async function setUp(
  { options, sessions, signal }: RoomsContext,
  source: Session,
  target: Session,
  holder: Session,
  replica: boolean,
): Promise<Lease> {
  const { sync, log, adopt, direction } = options;
  await requireTurn(sync, direction, { source, target });
  const setup = {
    sync: sync.name,
    source,
    target,
    replica,
    adopt,
    tables: sync.tables,
    exclude: sync.exclude,
    carry: sync.carry,
    asked: sync.asked,
    budget: sync.budget,
    rivalry: sync.rivalry,
    targetNode: sync.target.name,
  };
  let inspection: SetupResult | undefined = await inspect(setup);
  await migrate(target, 'target');
  const lease = await Lease.acquire(holder, sync.name, sessions.pids('target'), signal, (name) => {
    log.info(`waiting for ${name} to let go of sync ${sync.name}`);
    inspection = undefined;
  });
  try {
    // Again, now that nobody else has the lane: who had it may have ended because the other side became live.
    await requireTurn(sync, direction, { source, target });
    await holdSource(source, sync.name, sessions.pids('source'), signal);
  } catch (error) {
    // Who is refused leaves no trace of a daemon that seems to have died.
    await lease.release();
    throw error;
  }
  const obstacles = await lease.during(signal, async () =>
    install(setup, inspection ?? (await inspect(setup))),
  );
  await putUpGuard(options, target);
  await lease.begin();
  // What does not fit there is named with its remedy when the tables are fitted.
  for (const { error } of obstacles) {
    if (error.kind !== 'schema_mismatch')
      log.warn({ table: error.table }, `${error.message} (${error.hint})`);
  }
  return lease;
}

/** Before rows are copied, as far as nobody has the tables locked: what comes in between is noted. */
async function putUpGuard({ sync, lockTimeoutMs }: IncarnationOptions, target: Session): Promise<void> {
  const { name, source, guard, budget } = sync;
  if (guard === null) return;
  await installGuard(target, { sync: name, source: source.name, bytes: budget.bytes });
  const tables = await readSyncTables(target, name);
  const present = tables.filter(({ state }) => state !== 'dropped');
  await tendGuard(target, name, present, lockTimeoutMs);
}

/** What was altered while nobody looked: the plans are made of what was judged. */
async function answerDriftNow({ options }: RoomsContext, source: Session, target: Session): Promise<void> {
  const { sync, log, lockTimeoutMs } = options;
  const outlines = new Map();
  const reports = await answerDrift({ source, target, sync: sync.name, lockTimeoutMs, outlines });
  for (const { table, what } of reports) {
    log.warn({ table }, `${table}: ${what}`);
    options.tryAgain(table);
  }
}

/** Where the lane starts: at the checkpoint, if there is one; else at the source's present. */
async function startPosition(
  { options, onPosition }: RoomsContext,
  source: Session,
  target: Session,
  lease: Lease,
): Promise<Snapshot> {
  const { name } = options.sync;
  const now = await readLastingSnapshot(source);
  const record = await readRecord(target, name);
  await startLane(target, name, lease.epoch, now);
  const position = record?.started ?? now;
  onPosition(position);
  return position;
}

/** A table whose deltas were given up waits until somebody asks for a new copy: by itself it would fill the disk again. */
async function noteGivenUp(
  { options, roster }: RoomsContext,
  source: Session,
  target: Session,
): Promise<void> {
  const unknown = roster.tables.filter(
    ({ givenUp, state, reason }) => givenUp !== null && (state !== 'pending' || reason !== givenUp),
  );
  for (const table of unknown) {
    await requestCopy(target, options.sync.name, table.relid, true, table.givenUp);
  }
  if (unknown.length > 0) await roster.refresh(source, target);
}

/** Deltas that were forgotten cannot be read again: a checkpoint from before them needs a new copy. */
async function requireDeltas(
  { options, roster }: RoomsContext,
  source: Session,
  target: Session,
  start: Snapshot,
): Promise<void> {
  const { sync, log } = options;
  let again = false;
  for (const table of roster.tables) {
    const needsDeltas = table.state === 'streaming' || table.floor !== null;
    if (!needsDeltas || table.forgotten === null) continue;
    if (covers(table.floor ?? start, table.forgotten)) continue;
    const message = 'the checkpoint is older than the deltas that are left: the table is copied again';
    log.warn({ table: tableLabel(table) }, message);
    await requestCopy(target, sync.name, table.relid, true, null);
    again = true;
  }
  if (again) await roster.refresh(source, target);
}
