/** `ibex pause` and `ibex resume`: hold a sync back and let it go on, whether or not its daemon runs. */
import { pausedSince, pauseSync, resumeSync } from '../apply/restraint.ts';
import { type CommandSpec, liveLane, onlySync, openSession, print } from './command.ts';

export const pause: CommandSpec = {
  name: 'pause',
  summary: 'stop reading from the source until `ibex resume`',
  description:
    'A paused sync begins no chunk of a copy and reads no batch; what is under way comes to its end. Changes go on being noted on the source, so nothing is lost and the delta tables grow. It stays paused when its daemon is started again. A running daemon notices within about a second, and a resume at once.',
  options: ['json'],
  oneSided: true,
  run: async ({ config }) => {
    const sync = await liveLane(onlySync(config));
    await using target = await openSession(sync, 'target', 'pause');
    const since = await pauseSync(target, sync.name);
    print(config.json, { sync: sync.name, paused: since }, `${sync.name} is ${pausedSince(since)}`);
    return 0;
  },
};

export const resume: CommandSpec = {
  name: 'resume',
  summary: 'let a paused sync go on where it stopped',
  description: 'Ends what `ibex pause` began. A sync that is not paused stays as it is.',
  options: ['json'],
  oneSided: true,
  run: async ({ config }) => {
    const sync = await liveLane(onlySync(config));
    await using target = await openSession(sync, 'target', 'resume');
    const resumed = await resumeSync(target, sync.name);
    const text = resumed ? `${sync.name} goes on` : `${sync.name} was not paused`;
    print(config.json, { sync: sync.name, resumed }, text);
    return 0;
  },
};
