import type { JSX } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import type { AlarmView, Transition } from '../../cloudwatch/views.ts';
import { AlarmBadge } from './dashboard.tsx';
import { alarmAnchor, number, shortName } from './format.ts';
import { Graph } from './graph.tsx';
import { useLive } from './live.ts';
import { At, type Column, Lasting, Pending, Table } from './parts.tsx';
import { Link } from './router.tsx';

const CHANGES: readonly Column<Transition>[] = [
  { title: 'When', cell: ({ at }) => <At at={at} /> },
  { title: 'Alarm', cell: ({ name }) => shortName(name) },
  { title: 'Now', cell: ({ to }) => <AlarmBadge state={to} /> },
  { title: 'Why', cell: ({ reason }) => reason },
];

interface AlarmProps {
  readonly alarm: AlarmView;
  /** Alarms on metrics from which a composite alarm is made (infra/alarms.ts). */
  readonly conditions: readonly AlarmView[];
}

interface AlarmsView {
  readonly alarms: readonly AlarmView[];
  readonly transitions: readonly Transition[];
}

export function AlarmsPage({ address }: { readonly address: URL }): JSX.Element {
  const { data, isLost } = useLive<AlarmsView>('alarms');
  const target = address.hash.slice(1);
  const isThere = data !== undefined;
  useEffect(() => {
    if (isThere && target !== '') document.getElementById(target)?.scrollIntoView();
  }, [target, isThere]);
  if (data === undefined) return <Pending isLost={isLost} />;
  const alarms = data.alarms.filter(({ notifies }) => notifies);
  const ringing = alarms.filter(({ state }) => state === 'ALARM');
  const others = alarms.filter(({ state }) => state !== 'ALARM');
  const conditionsOf = ({ name }: AlarmView): readonly AlarmView[] =>
    data.alarms.filter((condition) => !condition.notifies && condition.name.startsWith(`${name}, `));
  return (
    <>
      {ringing.length === 0 && <p class="health good">No alarm.</p>}
      {ringing.map((alarm) => (
        <section key={alarm.name} class="card alarm bad" id={alarmAnchor(alarm.name)}>
          <h2>
            <AlarmTitle alarm={alarm} />
          </h2>
          <AlarmBody alarm={alarm} conditions={conditionsOf(alarm)} />
        </section>
      ))}
      <section class="card">
        {others.map((alarm) => (
          <QuietAlarm
            key={alarm.name}
            alarm={alarm}
            conditions={conditionsOf(alarm)}
            isTarget={alarmAnchor(alarm.name) === target}
          />
        ))}
      </section>
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

/** An alarm that does not ring: its details are shown when it is opened. */
function QuietAlarm(props: AlarmProps & { readonly isTarget: boolean }): JSX.Element {
  const { alarm, conditions, isTarget } = props;
  const [isOpen, setOpen] = useState(isTarget);
  useEffect(() => {
    if (isTarget) setOpen(true);
  }, [isTarget]);
  return (
    <details
      class="alarm"
      id={alarmAnchor(alarm.name)}
      open={isOpen}
      onToggle={({ currentTarget }) => setOpen(currentTarget.open)}
    >
      <summary>
        <AlarmTitle alarm={alarm} />
      </summary>
      {isOpen && <AlarmBody alarm={alarm} conditions={conditions} />}
    </details>
  );
}

function AlarmTitle({ alarm: { name, state } }: { readonly alarm: AlarmView }): JSX.Element {
  return (
    <>
      <AlarmBadge state={state} /> {shortName(name)}
    </>
  );
}

/** The description that the stack gives an alarm (infra/alarms.ts): severity, what users notice, where to read on. */
const DESCRIPTION = /^Severity (\S+)\. (.*) What to do: \S*#([\w-]+)$/s;

function AlarmBody({ alarm, conditions }: AlarmProps): JSX.Element {
  const { name, description, since, reason, lines, threshold } = alarm;
  const [, severity, effect = description, anchor] = DESCRIPTION.exec(description) ?? [];
  return (
    <>
      <p>{effect}</p>
      <dl class="facts">
        {severity !== undefined && (
          <>
            <dt>Severity</dt>
            <dd>{severity}</dd>
          </>
        )}
        <dt>In this state for</dt>
        <dd>
          <Lasting since={since} />
        </dd>
        <dt>Why</dt>
        <dd>{reason}</dd>
        {threshold !== undefined && (
          <>
            <dt>Threshold</dt>
            <dd>{number(threshold)}</dd>
          </>
        )}
      </dl>
      {anchor !== undefined && (
        <p>
          <Link to={`/runbook#${anchor}`}>What to do: the runbook</Link>
        </p>
      )}
      {lines.length > 0 && <Graph title={`${shortName(name)}: the metric`} lines={lines} threshold={threshold} />}
      {conditions.map((condition) => (
        <Condition key={condition.name} condition={condition} />
      ))}
    </>
  );
}

function Condition({ condition }: { readonly condition: AlarmView }): JSX.Element {
  const { name, lines, threshold, reason } = condition;
  return (
    <>
      <h3>
        <AlarmTitle alarm={condition} />
      </h3>
      <p>{reason}</p>
      <Graph title={`${shortName(name)}: the metric`} lines={lines} threshold={threshold} />
    </>
  );
}
