import type { JSX } from 'preact';
import type { ServerView, ServersView } from '../views.ts';
import { duration, number } from './format.ts';
import { useLive } from './live.ts';
import { type Column, Pending, Table, When } from './parts.tsx';

const none = <span class="quiet">not known</span>;

const COLUMNS: readonly Column<ServerView>[] = [
  { title: 'Host', cell: ({ host }) => <b>{host}</b> },
  { title: 'Last webhook', cell: ({ lastWebhook }) => (lastWebhook === undefined ? none : <When at={lastWebhook} />) },
  { title: 'Its events', cell: ({ events }) => (events === undefined ? none : number(events)), isNumber: true },
  { title: 'Webhooks', cell: ({ webhooks }) => (webhooks === undefined ? none : number(webhooks)), isNumber: true },
  { title: 'Joins', cell: ({ joins }) => number(joins), isNumber: true },
  { title: 'Heartbeat', cell: ({ heartbeat }) => (heartbeat === undefined ? none : <When at={heartbeat.at} />) },
  {
    title: 'Events that wait in it',
    cell: ({ heartbeat }) =>
      heartbeat === undefined
        ? none
        : heartbeat.queued === 0
          ? 'none'
          : `${number(heartbeat.queued)}, the oldest for ${duration(heartbeat.oldest)}`,
  },
];

export function Servers({ servers }: { readonly servers: readonly ServerView[] }): JSX.Element {
  return (
    <Table
      caption="XMPP servers that report"
      columns={COLUMNS}
      rows={servers}
      rowKey={({ host }) => host}
      empty="No server has reported yet. Configure Prosody as the output of the start says."
    />
  );
}

export function ServersPage(): JSX.Element {
  const { data, isLost } = useLive<ServersView>('servers');
  if (data === undefined) return <Pending isLost={isLost} />;
  return (
    <>
      <section class="card">
        <Servers servers={data.servers} />
      </section>
      {data.refused !== undefined && (
        <section class="card">
          <h2>Last refused request</h2>
          <p>
            <When at={data.refused.at} />: <span class="error">{data.refused.detail}</span>
          </p>
        </section>
      )}
    </>
  );
}
