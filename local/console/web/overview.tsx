import type { JSX } from 'preact';
import type { OverviewView } from '../views.ts';
import { Ended, Waiting } from './checks.tsx';
import { alarmAnchor, number, shortName } from './format.ts';
import { type Live } from './live.ts';
import { Pending } from './parts.tsx';
import { Link } from './router.tsx';
import { Servers } from './servers.tsx';

/** Whether all is well, and what comes next. */
export function OverviewPage({ overview }: { readonly overview: Live<OverviewView> }): JSX.Element {
  const { data, isLost } = overview;
  if (data === undefined) return <Pending isLost={isLost} />;
  const ringing = data.alarms.filter(({ state, notifies }) => notifies && state === 'ALARM');
  return (
    <>
      <p class={`health ${data.health.level}`}>{data.health.sentence}</p>
      <ul class="tiles">
        <Tile to="/search" value={data.joins} label={data.isFilling ? 'joins (still counting)' : 'joins'} />
        <Tile to="/checks" value={data.waitingCount} label="checks wait" />
        <Tile to="/alarms" value={ringing.length} label="alarms" isBad={ringing.length > 0} />
        <Tile to="/servers" value={data.servers.length} label="servers" />
      </ul>
      {ringing.length > 0 && (
        <section class="card bad">
          <h2>Alarms</h2>
          <ul>
            {ringing.map(({ name }) => (
              <li key={name}>
                <Link to={`/alarms#${alarmAnchor(name)}`}>{shortName(name)}</Link>
              </li>
            ))}
          </ul>
        </section>
      )}
      <section class="card">
        <Waiting checks={data.due} />
      </section>
      <section class="card">
        <Ended checks={data.ended} />
      </section>
      <section class="card">
        <Servers servers={data.servers} />
      </section>
    </>
  );
}

function Tile(props: {
  readonly to: string;
  readonly value: number;
  readonly label: string;
  readonly isBad?: boolean;
}): JSX.Element {
  return (
    <li>
      <Link to={props.to} class={`tile ${props.isBad ? 'bad' : ''}`}>
        <b>{number(props.value)}</b> {props.label}
      </Link>
    </li>
  );
}
