import { readFile } from 'node:fs/promises';
import { runSimulation } from '@cloud-copilot/iam-simulate';
import { type Resource, readResources } from '../local/assembly.ts';
import type { Call } from '../local/calls.ts';

/** Compares what the synthesized stack permits with the AWS calls that its functions really make. */

interface PolicyDocument {
  readonly Statement: readonly {
    readonly Effect: string;
    readonly Action: string | string[];
    readonly Resource: string | string[];
  }[];
}

export interface Permission {
  readonly action: string;
  readonly resource: string;
}

const ACCOUNT = '000000000000';

const list = <Item>(items: Item | readonly Item[]): readonly Item[] =>
  Array.isArray(items) ? (items as readonly Item[]) : [items as Item];

/** The distinct calls in a record. */
export async function readCalls(file: string): Promise<readonly Call[]> {
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return ''; // none were made
    throw error;
  });
  const lines = new Set(text.split('\n').filter((line) => line !== ''));
  return [...lines].map((line) => JSON.parse(line) as Call);
}

/** CodeDeploy's roles have a policy that AWS maintains, and nothing of ours assumes them. */
export const isOfCodeDeploy = ({ Properties }: Resource): boolean =>
  JSON.stringify(Properties['AssumeRolePolicyDocument']).includes('"codedeploy.amazonaws.com"');

/** The policies of every role of functions and workflow, by the role's logical id. */
function policies(resources: Readonly<Record<string, Resource>>): Map<string, PolicyDocument[]> {
  const roles = Object.entries(resources).filter(([, role]) => role.Type === 'AWS::IAM::Role' && !isOfCodeDeploy(role));
  const documents = new Map<string, PolicyDocument[]>();
  for (const [role, { Properties }] of roles) {
    const inline = (Properties['Policies'] ?? []) as { PolicyDocument: PolicyDocument }[];
    if (Properties['ManagedPolicyArns'] !== undefined)
      throw new Error(`${role} has managed policies, which the template does not show`);
    documents.set(
      role,
      inline.map((policy) => policy.PolicyDocument),
    );
  }
  for (const { Type, Properties } of Object.values(resources)) {
    if (Type !== 'AWS::IAM::Policy') continue;
    for (const role of Properties['Roles'] as string[])
      documents.get(role)?.push(Properties['PolicyDocument'] as PolicyDocument);
  }
  return documents;
}

function roleOf(resources: Readonly<Record<string, Resource>>, functionName: string): string {
  return String(resources[functionName]?.Properties['Role']).split(':').at(-1) ?? '';
}

/** The calls that the role of the function that made them does not permit. */
export async function refusedCalls(assembly: string, calls: readonly Call[]): Promise<readonly string[]> {
  const resources = await readResources(assembly);
  const documents = policies(resources);
  const refused: string[] = [];
  for (const { caller, action, resource } of calls) {
    if (resources[caller]?.Type !== 'AWS::Lambda::Function') continue; // a test looked into the table itself
    const result = await runSimulation(
      {
        request: {
          principal: `arn:aws:iam::${ACCOUNT}:role/${roleOf(resources, caller)}`,
          action,
          resource: { resource, accountId: ACCOUNT },
          contextVariables: {},
        },
        identityPolicies: (documents.get(roleOf(resources, caller)) ?? []).map((policy, index) => ({
          name: `policy ${index}`,
          policy,
        })),
        serviceControlPolicies: [],
        resourceControlPolicies: [],
      },
      {},
    );
    if (result.resultType === 'error') throw new Error(`${action} on ${resource}: ${JSON.stringify(result.errors)}`);
    if (result.overallResult !== 'Allowed') refused.push(`${caller} called ${action} on ${resource}`);
  }
  return refused;
}

/** What each role permits, one action on one resource at a time, by the role's logical id. */
export async function permissions(assembly: string): Promise<ReadonlyMap<string, readonly Permission[]>> {
  const documents = policies(await readResources(assembly));
  const granted = ({ Statement }: PolicyDocument): Permission[] =>
    Statement.flatMap(({ Action, Resource }) =>
      list(Action).flatMap((action) => list(Resource).map((resource) => ({ action, resource }))),
    );
  return new Map([...documents].map(([role, own]) => [role, own.flatMap(granted)]));
}

/** The functions' names by the logical ids of their roles. */
export async function functionsByRole(assembly: string): Promise<ReadonlyMap<string, string>> {
  const resources = await readResources(assembly);
  const functions = Object.keys(resources).filter((id) => resources[id]?.Type === 'AWS::Lambda::Function');
  return new Map(functions.map((name) => [roleOf(resources, name), name]));
}
