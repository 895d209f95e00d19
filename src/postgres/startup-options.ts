/** The parameter `options` of a connection, which the server reads as its command line: for where it is not sent. */
import { IbexError } from '../core/errors.ts';

export type StartupSetting = readonly [name: string, value: string];

/** `-c name=value`, `-cname=value` and `--name=value`, with the escape that libpq documents: a backslash. */
export function parseStartupOptions(options: string): StartupSetting[] {
  const words = (options.match(/(?:\\.|[^\s\\])+/gs) ?? []).map((word) => word.replace(/\\(.)/gs, '$1'));
  const settings: StartupSetting[] = [];
  for (let word = words.shift(); word !== undefined; word = words.shift()) {
    const text = word === '-c' ? `-c${words.shift() ?? ''}` : word;
    const [, name, value] = /^(?:-c|--)([^=]+)=(.*)$/s.exec(text) ?? [];
    if (name === undefined || value === undefined) {
      throw new IbexError('config', 'the pooler takes no `options`, and they are more than settings', {
        hint: 'Write them as -c name=value, or leave them out of the URL and of PGOPTIONS.',
      });
    }
    settings.push([name.replaceAll('-', '_'), value]);
  }
  return settings;
}
