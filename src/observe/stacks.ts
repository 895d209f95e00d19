/**
 * Stacks name the files and lines of src/ although the program is built into a few large files. The maps beside those are
 * read when somebody looks at a stack, and not, as Node does it, at every start.
 */
import { existsSync, readFileSync } from 'node:fs';
import { SourceMap } from 'node:module';
import { fileURLToPath } from 'node:url';

const maps = new Map<string, SourceMap | null>();

/** From now on, for all errors of the process. */
export function nameSources(): void {
  Error.prepareStackTrace = (error, calls) =>
    [Error.prototype.toString.call(error), ...calls.map((call) => `    at ${describe(call)}`)].join('\n');
}

function describe(call: NodeJS.CallSite): string {
  const [file, line, column] = [call.getFileName(), call.getLineNumber(), call.getColumnNumber()];
  const text = call.toString();
  if (!file?.match(/^file:.*\.js$/) || line === null || column === null) return text;
  const found = mapOf(file)?.findEntry(line - 1, column - 1);
  if (found === undefined || !('originalSource' in found)) return text;
  const { originalSource, originalLine, originalColumn } = found;
  const source = fileURLToPath(new URL(originalSource, file));
  return text.replace(`${file}:${line}:${column}`, `${source}:${originalLine + 1}:${originalColumn + 1}`);
}

function mapOf(file: string): SourceMap | null {
  const known = maps.get(file);
  if (known !== undefined) return known;
  const path = fileURLToPath(`${file}.map`);
  const map = existsSync(path) ? new SourceMap(JSON.parse(readFileSync(path, 'utf8'))) : null;
  maps.set(file, map);
  return map;
}
