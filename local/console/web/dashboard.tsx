import type { JSX } from 'preact';
import type { WidgetView } from '../../cloudwatch/views.ts';
import type { DashboardView, OverviewView } from '../views.ts';
import { alarmAnchor, shortName } from './format.ts';
import { Graph } from './graph.tsx';
import { useLive } from './live.ts';
import { Markdown } from './markdown.tsx';
import { Badge, Pending } from './parts.tsx';
import { Link, go } from './router.tsx';

const RANGES: readonly (readonly [string, string])[] = [
  ['1h', '1 h'],
  ['3h', '3 h'],
  ['12h', '12 h'],
  ['1d', '1 d'],
  ['7d', '7 d'],
  ['30d', '30 d'],
];
/** Metrics are collected by the minute. */
const RENEWED_MS = 10_000;

/** The stack's dashboard, widget by widget as the template has it. */
export function DashboardPage(props: { readonly address: URL; readonly alarms: OverviewView['alarms'] }): JSX.Element {
  const range = props.address.searchParams.get('range') ?? '3h';
  const { data, isLost } = useLive<DashboardView>(`dashboard?range=${encodeURIComponent(range)}`, RENEWED_MS);
  return (
    <>
      <fieldset class="ranges">
        <legend>Time range</legend>
        {RANGES.map(([name, label]) => (
          <label key={name}>
            <input type="radio" name="range" checked={name === range} onChange={() => go(`/dashboard?range=${name}`)} />
            <span>{label}</span>
          </label>
        ))}
      </fieldset>
      {data === undefined ? (
        <Pending isLost={isLost} />
      ) : (
        <div class="grid">
          {data.widgets.map((widget, index) => (
            <Place key={index} widget={widget}>
              <Widget widget={widget} view={data} alarms={props.alarms} />
            </Place>
          ))}
        </div>
      )}
    </>
  );
}

function Place({ widget, children }: { readonly widget: WidgetView; readonly children: JSX.Element }): JSX.Element {
  const { x, y, width, height } = widget;
  return (
    <section class={`widget ${widget.kind}`} style={{ '--x': x, '--y': y, '--width': width, '--height': height }}>
      {children}
    </section>
  );
}

function Widget(props: {
  readonly widget: WidgetView;
  readonly view: DashboardView;
  readonly alarms: OverviewView['alarms'];
}): JSX.Element {
  const { widget, view, alarms } = props;
  switch (widget.kind) {
    case 'text':
      return <Markdown text={widget.markdown} />;
    case 'graph':
      return <Graph {...widget} from={view.from} to={view.to} />;
    case 'alarms':
      return (
        <>
          <h2>{widget.title}</h2>
          <ul class="alarm-states">
            {widget.alarms.map((name) => {
              const state = alarms.find((alarm) => alarm.name === name)?.state ?? 'INSUFFICIENT_DATA';
              return (
                <li key={name}>
                  <AlarmBadge state={state} /> <Link to={`/alarms#${alarmAnchor(name)}`}>{shortName(name)}</Link>
                </li>
              );
            })}
          </ul>
        </>
      );
  }
}

const STATES = { OK: ['good', 'OK'], ALARM: ['bad', 'Alarm'], INSUFFICIENT_DATA: ['quiet', 'No data'] } as const;

export function AlarmBadge({ state }: { readonly state: keyof typeof STATES }): JSX.Element {
  const [tone, word] = STATES[state];
  return <Badge tone={tone}>{word}</Badge>;
}
