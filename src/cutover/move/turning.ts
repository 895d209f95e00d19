/**
 * The switch, and what follows it. The order makes every crash harmless: first the lane of the other direction has its
 * place, which nobody reads while the old side is live; then one transaction makes the new side live; from then on there is
 * only one way to go on, which can be repeated: that lane runs, then the new side is opened.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { turnLive } from '../../apply/live.ts';
import { readParked } from '../../apply/parking.ts';
import { placeLane, readMoved } from '../../apply/placing.ts';
import { restoreParked } from '../../apply/restoring.ts';
import { beginLane } from '../../capture/trigger/beginning.ts';
import { liftFence, readFence } from '../../capture/trigger/fence.ts';
import { readLastingSnapshot } from '../../capture/trigger/registry.ts';
import { IbexError } from '../../core/errors.ts';
import { failpoint } from '../../core/failpoints.ts';
import { readDaemon } from '../../observe/status.ts';
import { readIdentity } from '../../postgres/catalog.ts';
import type { Ending, Move } from './move.ts';
import { tablesOf } from './preparing.ts';
import { requireAccount } from './proving.ts';

const LOOK_MS = 20;

export async function turn(move: Move, mark: string) {
  const { sync, to, next, old, fresh, record } = move;
  const position = await readLastingSnapshot(fresh);
  const tables = await tablesOf(move);
  const witness = await beginLane(fresh, next.name, position);
  const source = await readIdentity(fresh);
  const placed = await placeLane(old, { sync: next.name, source, witness, position, tables });
  failpoint('move-placed');
  await requireAccount(move, mark);
  await record.transaction('', () => turnLive(record, sync.name, to));
  failpoint('move-turned');
  return { found: { position, placed }, text: `${fresh.server} is live; the way back begins at ${position}` };
}

/**
 * Waits until the daemon runs the lane of the other direction and has carried a batch, and puts back what was set aside on
 * the new side for the sake of the lane that ended. `placed` is when the checkpoint of the new lane was placed; null: any
 * daemon that runs it will do.
 */
export async function awaitWayBack(move: Ending, placed: string | null) {
  const { lane, next, old, fresh, timeoutMs, signal } = move;
  const deadline = Date.now() + timeoutMs;
  while (
    (await readDaemon(old, next.name)) === null ||
    (await readDaemon(fresh, lane.name)) !== null ||
    (await readMoved(old, next.name)) === placed
  ) {
    if (Date.now() > deadline) throw await notRunning(move);
    await sleep(LOOK_MS, undefined, { signal });
  }
  const aside = await readParked(fresh, lane.name);
  for (const object of aside) await restoreParked(fresh, lane.name, object);
  return {
    found: { restored: aside.length },
    text: `the daemon carries back what changes on ${fresh.server}`,
  };
}

async function notRunning({ next, fresh, timeoutMs }: Ending): Promise<IbexError> {
  const { lifts } = await readFence(fresh, next.name);
  return new IbexError(
    'refused',
    `${fresh.server} is live and still fenced: after ${timeoutMs / 1000} s no daemon carries its changes back`,
    {
      hint:
        'Start the daemon (`ibex run`), then run the command again. What changes is noted in any case: to open the new side ' +
        `at once, run there: ${lifts};`,
    },
  );
}

/** Opens the new side to the application. */
export async function open({ next, fresh }: Ending) {
  await liftFence(fresh, next.name);
  return { found: {}, text: `the application can write to ${fresh.server}` };
}
