/** A diagnosis as a person reads it on a terminal, and as one document. Pure. */
import type { Diagnosis } from './doctor.ts';
import { CHECKS, type Finding, type Severity } from './finding.ts';

/** Whether a sync would come through: nothing was found that fails later. */
export function isHealthy({ findings }: Diagnosis): boolean {
  return findings.every(({ severity }) => severity !== 'error');
}

export function diagnosisText(diagnosis: Diagnosis): string {
  const { sync, tables, findings } = diagnosis;
  const count = (severity: Severity) => findings.filter((finding) => finding.severity === severity).length;
  const verdict = isHealthy(diagnosis) ? 'nothing found that would fail' : 'something would fail';
  return [
    ...(diagnosis.live === 'target' ? [sidesText(diagnosis)] : []),
    ...findings.flatMap(lines),
    `${sync}: ${verdict}: ${count('error')} errors, ${count('warning')} warnings, ${tables.length} tables`,
  ].join('\n');
}

function sidesText({ sync, source, target }: Diagnosis): string {
  return `since the cutover the configured target is live: this is ${sync}, with source ${source} and target ${target}`;
}

function lines({ severity, check, side, what, remedy }: Finding): string[] {
  const head = `${severity.padEnd(8)}${side.padEnd(7)} ${check}: ${what}`;
  return severity === 'info' ? [head] : [head, `        ${CHECKS[check]}`, `        -> ${remedy ?? ''}`];
}

/** With the reason why each matters. */
export function diagnosisDocument(diagnosis: Diagnosis) {
  const findings = diagnosis.findings.map((finding) => ({ ...finding, why: CHECKS[finding.check] }));
  return { ...diagnosis, healthy: isHealthy(diagnosis), findings };
}
