import type { JSX } from 'preact';
import { useEffect } from 'preact/hooks';
import type { AlarmView, Transition } from '../../cloudwatch/views.ts';
import { AlarmBadge } from './dashboard.tsx';
import { number, shortName } from './format.ts';
import { Graph } from './graph.tsx';
import { useLive } from './live.ts';
import { At, type Column, Lasting, Pending, Table } from './parts.tsx';
import { Link } from './router.tsx';

const ORDER = { ALARM: 0, INSUFFICIENT_DATA: 1, OK: 2 } as const;

const CHANGES: readonly Column<Transition>[] = [
  { title: 'When', cell: ({ at }) => <At at={at} /> },
  { title: 'Alarm', cell: ({ name }) => shortName(name) },
  { title: 'Now', cell: ({ to }) => <AlarmBadge state={to} /> },
  { title: 'Why', cell: ({ reason }) => reason },
];

interface AlarmsView {
  readonly alarms: readonly AlarmView[];
  readonly transitions: readonly Transition[];
}

export function AlarmsPage({ address }: { readonly address: URL }): JSX.Element {
  const { data, isLost } = useLive<AlarmsView>('alarms');
  const hash = decodeURIComponent(address.hash.slice(1));
  useEffect(() => {
    if (hash !== '') document.getElementById(hash)?.scrollIntoView();
  }, [hash, data === undefined]);
  if (data === undefined) return <Pending isLost={isLost} />;
  const alarms = [...data.alarms].sort((a, b) => ORDER[a.state] - ORDER[b.state]);
  return (
    <>
      {alarms.map((alarm) => (
        <Alarm key={alarm.name} alarm={alarm} />
      ))}
      <section class="card">
        <Table
          caption="Changes of alarms, newest first"
          columns={CHANGES}
          rows={data.transitions}
          rowKey={({ at, name }) => `${at} ${name}`}
          empty="No alarm has changed its state yet."
        />
      </section>
    </>
  );
}

/** The description that the stack gives an alarm (infra/alarms.ts): severity, what users notice, where to read on. */
const DESCRIPTION = /^Severity (\S+)\. (.*) What to do: \S*#([\w-]+)$/s;

function Alarm({ alarm }: { readonly alarm: AlarmView }): JSX.Element {
  const { name, description, state, since, reason, lines, threshold } = alarm;
  const [, severity, effect = description, anchor] = DESCRIPTION.exec(description) ?? [];
  return (
    <section class={`card alarm ${state === 'ALARM' ? 'bad' : ''}`} id={name}>
      <h2>
        <AlarmBadge state={state} /> {shortName(name)}
      </h2>
      <p>{effect}</p>
      <p class="quiet">
        {severity !== undefined && `Severity ${severity}. `}
        In this state for <Lasting since={since} />. {reason}
        {threshold !== undefined && ` Threshold: ${number(threshold)}.`}
      </p>
      {anchor !== undefined && (
        <p>
          <Link to={`/runbook#${anchor}`}>What to do</Link>
        </p>
      )}
      {lines.length > 0 && <Graph title={`${shortName(name)}: the metric`} lines={lines} threshold={threshold} />}
    </section>
  );
}
