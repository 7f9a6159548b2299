import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/**
 * The CDK app, with a template that the emulator can deploy. It knows no saved queries, no alarms with metric math, and
 * so no composite alarms over them; and no CodeDeploy, so aliases change at once. All of these are left out. It ignores
 * ExcludePunctuation: the characters are listed.
 */
interface Resource {
  readonly Type: string;
  UpdatePolicy?: unknown;
  readonly Properties?: { readonly Metrics?: unknown; GenerateSecretString?: Record<string, unknown> };
}

const PUNCTUATION = '!"#$%&\'()*+,-./:;<=>?@[\\]^_`{|}~';
/** What stands for a stack without settings has one resource, which the emulator knows. */
const STAND_IN = 1;

const isUnknown = ({ Type, Properties }: Resource): boolean =>
  Type === 'AWS::Logs::QueryDefinition' ||
  Type === 'AWS::CloudWatch::CompositeAlarm' ||
  Type.startsWith('AWS::CodeDeploy::') ||
  (Type === 'AWS::CloudWatch::Alarm' && Properties?.Metrics !== undefined);

await import('../../infra/app.ts');
const file = join(process.env['CDK_OUTDIR'] ?? 'cdk.out', 'PingMuc.template.json');
const template = JSON.parse(await readFile(file, 'utf8')) as { readonly Resources: Record<string, Resource> };
const all = Object.entries(template.Resources);
const known = all.filter(([, resource]) => !isUnknown(resource));
const aliases = known.flatMap(([, resource]) => (resource.UpdatePolicy === undefined ? [] : [resource]));
for (const alias of aliases) delete alias.UpdatePolicy;
const secrets = known.flatMap(([, { Properties }]) =>
  Properties?.GenerateSecretString ? [Properties.GenerateSecretString] : [],
);
for (const secret of secrets) secret['ExcludeCharacters'] = PUNCTUATION;
if (all.length > STAND_IN && (known.length === all.length || aliases.length === 0 || secrets.length === 0))
  throw new Error('there is nothing to change for the emulator: remove this from lab/aws/app.ts');
await writeFile(file, JSON.stringify({ ...template, Resources: Object.fromEntries(known) }, undefined, 1));
