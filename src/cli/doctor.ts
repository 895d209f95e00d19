/** `ibex doctor`: what would fail later, found before anything is done. */
import { diagnose } from '../cutover/doctor/doctor.ts';
import { diagnosisDocument, diagnosisText, isHealthy } from '../cutover/doctor/text.ts';
import { type CommandSpec, onlySync, print } from './command.ts';

/** How long changes are counted: servers write their counts down about once a second. */
const LOOK_MS = 2_000;

export const doctor: CommandSpec = {
  name: 'doctor',
  summary: 'look at both sides, and say what would fail later',
  description:
    'Looks at both databases and tries out what a sync does, on tables made for it, in transactions that are rolled back: nothing is left behind, and no table of the application is locked beyond what a query takes. Each finding says what it is, why it matters and what to do. Exit 1 when something would fail later (an error), 0 otherwise, warnings included; 3 when a side cannot be reached.',
  options: ['tables', 'exclude', 'keyless', 'jobs', 'max_source_connections', 'app_url', 'json'],
  run: async ({ config }) => {
    const { copying, appUrl } = config;
    const diagnosis = await diagnose({ sync: onlySync(config), copying, appUrl, lookMs: LOOK_MS });
    print(config.json, diagnosisDocument(diagnosis), diagnosisText(diagnosis));
    return isHealthy(diagnosis) ? 0 : 1;
  },
};
