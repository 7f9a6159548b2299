import { Marked } from 'marked';

/** Where links to other pages of the documentation lead. */
const DOCUMENTS = 'https://github.com/ping-muc/ping-muc/blob/main/docs/';

const escape = (text: string): string => text.replaceAll(/[&<>"]/g, (sign) => `&#${sign.codePointAt(0)};`);

/** The anchor of a heading, as GitHub makes it. */
const anchor = (heading: string): string =>
  heading.toLowerCase().replaceAll(/[^\w\- ]/g, '').replaceAll(' ', '-'); // prettier-ignore

const marked = new Marked({
  renderer: {
    heading({ tokens, depth, text }) {
      // the page has its own first heading
      const level = Math.min(6, depth + 1);
      return `<h${level} id="${escape(anchor(text))}">${this.parser.parseInline(tokens)}</h${level}>`;
    },
    link({ href, tokens }) {
      const isHere = href.startsWith('#');
      const target = isHere ? href : (URL.parse(href, DOCUMENTS)?.href ?? '');
      const elsewhere = isHere ? '' : ' target="_blank" rel="noreferrer"';
      return `<a href="${escape(target)}"${elsewhere}>${this.parser.parseInline(tokens)}</a>`;
    },
    code({ text }) {
      return `<pre tabindex="0"><code>${escape(text)}</code></pre>`;
    },
    // a picture would be a request to elsewhere, and HTML has no place in a text
    image: ({ text }) => escape(text),
    html: ({ text }) => escape(text),
  },
});

/** @returns HTML. Links lead to an anchor of the page, or to the documentation. */
export function renderMarkdown(text: string): string {
  return marked.parse(text, { async: false });
}
