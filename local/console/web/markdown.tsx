import type { JSX } from 'preact';
import { useEffect, useState } from 'preact/hooks';

/** Markdown of our own: of the runbook or of the stack's dashboard. The parser is loaded with the first. */
export function Markdown({ text }: { readonly text: string }): JSX.Element {
  const [html, setHtml] = useState('');
  useEffect(() => {
    let isGone = false;
    void import('./render-markdown.ts').then(({ renderMarkdown }) => {
      if (!isGone) setHtml(renderMarkdown(text));
    });
    return () => {
      isGone = true;
    };
  }, [text]);
  useEffect(() => {
    if (html !== '' && location.hash !== '') document.getElementById(location.hash.slice(1))?.scrollIntoView();
  }, [html, location.hash]);
  return <div class="markdown" dangerouslySetInnerHTML={{ __html: html }} />;
}
