/**
 * The ways of replicating that the scenario `catch-up` compares. Each brings both sides into step, holds back what
 * comes from then on, and lets it go when the clock starts.
 */
import { performance } from 'node:perf_hooks';
import { Bucardo } from '../bucardo.ts';
import { type Running, requireSuccess } from '../children.ts';
import { Ibex } from '../ibex.ts';
import { setMark, whenMarked } from '../mark.ts';
import { NativeReplication } from '../native.ts';
import type { Databases } from '../pair.ts';
import { PGBENCH_TABLES } from '../pgbench.ts';
import { cpuSeconds } from '../proc.ts';

/** In step, and holding back. */
export interface Held {
  /** Lets go; gives the time when it was told to, on the clock of `performance.now()`. */
  begin(): Promise<number>;
  /** CPU seconds that it has used so far outside the two servers. */
  cpu(): number;
  /** False once it cannot catch up any more. */
  alive(): boolean;
  leave(): Promise<void>;
}

export interface Way {
  readonly who: string;
  hold(databases: Databases): Promise<Held>;
}

/** A change that is not there after so long is held back. */
const HELD_AFTER_MS = 2_000;
const WARM_UP_MS = 60_000;

export function ibexWay(who: string, redisUrl?: string): Way {
  return pausedWay(who, async (databases) => Ibex.oneWay(databases, redisUrl));
}

/**
 * What it costs that both sides may be written, where only one is: the same tables one way and both ways. Where both sides
 * are written every table needs a key.
 */
export const twoWayWays: readonly Way[] = [
  pausedWay('ibex, one way, keys', async (databases) => {
    await keyHistory(databases);
    return Ibex.oneWay(databases);
  }),
  pausedWay('ibex, two ways, keys', async (databases) => {
    await keyHistory(databases);
    return Ibex.twoWay(databases);
  }),
];

/** A daemon that runs, paused and resumed. The clock starts when `ibex resume` has said that it goes on. */
function pausedWay(who: string, prepare: (databases: Databases) => Promise<Ibex>): Way {
  return {
    who,
    hold: async (databases) => {
      const ibex = await prepare(databases);
      const daemon = await ibex.daemon();
      try {
        await warmUp(databases);
        await ibex.run('pause');
        await untilHeld(databases);
      } catch (error) {
        await daemon.stop();
        throw error;
      }
      let resume: Running | undefined;
      return {
        begin: async () => {
          resume = await ibex.start('resume');
          return resume.answered;
        },
        cpu: () => cpuSeconds(daemon.pid) ?? 0,
        alive: () => daemon.running,
        leave: async () => {
          requireSuccess('ibex run', await daemon.stop());
          if (resume !== undefined) requireSuccess('ibex resume', await resume.ended);
        },
      };
    },
  };
}

/** Nothing runs; the clock starts with the process. */
export const coldWay: Way = {
  who: 'ibex, cold start',
  hold: async (databases) => {
    const ibex = Ibex.oneWay(databases);
    await ibex.run('backfill');
    let catchingUp: Running | undefined;
    return {
      begin: async () => {
        catchingUp = await ibex.start('run', '--until-caught-up');
        return catchingUp.startedAt;
      },
      cpu: () => (catchingUp === undefined ? 0 : (cpuSeconds(catchingUp.pid) ?? 0)),
      alive: () => catchingUp?.running === true,
      leave: async () => {
        if (catchingUp !== undefined) {
          requireSuccess('ibex run --until-caught-up', await catchingUp.ended);
        }
      },
    };
  },
};

/** A subscription, disabled and enabled. */
export const nativeWay: Way = {
  who: 'native',
  hold: async (databases) => {
    const native = await NativeReplication.create(databases, PGBENCH_TABLES);
    await warmUp(databases);
    await native.disable();
    return {
      begin: async () => {
        const at = performance.now();
        await native.enable();
        return at;
      },
      cpu: () => 0,
      alive: () => true,
      leave: async () => {
        await native.disable();
        await native.drop();
      },
    };
  },
};

/** A daemon that runs, and whose sync begins when it is kicked. It needs a key in every table. */
export const bucardoWay: Way = {
  who: 'bucardo',
  hold: async (databases) => {
    await keyHistory(databases);
    const bucardo = await Bucardo.create(databases, PGBENCH_TABLES);
    try {
      await warmUp(databases, () => bucardo.kick());
    } catch (error) {
      await bucardo.remove();
      throw error;
    }
    return {
      begin: async () => {
        const at = performance.now();
        await bucardo.kick();
        return at;
      },
      cpu: () => bucardo.cpuSeconds(),
      alive: () => true,
      leave: () => bucardo.remove(),
    };
  },
};

async function keyHistory({ source, target }: Databases): Promise<void> {
  for (const { owner } of [source, target]) {
    await owner.query('alter table pgbench_history add column hid bigserial primary key');
  }
}

/** One change, until it has arrived: connections are open, plans made, caches filled. */
async function warmUp(databases: Databases, again?: () => Promise<void>): Promise<void> {
  await setMark(databases, 'warm-up');
  const deadline = performance.now() + WARM_UP_MS;
  while (performance.now() < deadline) {
    await again?.();
    if (await isSeenSoon(databases, 'warm-up')) return;
  }
  throw new Error('a first change did not arrive');
}

/** A pause is noticed a while after it was asked for. */
async function untilHeld(databases: Databases): Promise<void> {
  for (let probe = 1; ; probe++) {
    await setMark(databases, `probe ${probe}`);
    if (!(await isSeenSoon(databases, `probe ${probe}`))) return;
  }
}

async function isSeenSoon(databases: Databases, mark: string): Promise<boolean> {
  const until = performance.now() + HELD_AFTER_MS;
  return (await whenMarked(databases, mark, () => performance.now() < until)) !== undefined;
}
