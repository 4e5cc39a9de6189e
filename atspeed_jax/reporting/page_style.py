"""The style of an HTML report: phone, desktop, print and dark mode."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --card: #f6f7f9; --text: #1c2128; --quiet: #59636e; --line: #d8dde3; --link: #0a5c99;
  --good: #0072b2; --bad: #b34700; --found: #e3f0fa;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14181d; --card: #1e242b; --text: #e4e8ec; --quiet: #a2abb5; --line: #39424c; --link: #7cc0f0;
    --good: #6cb8ec; --bad: #f0a060; --found: #1d3a50;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; max-width: 66rem; padding: 1.5rem 1rem 4rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  overflow-wrap: break-word;
}
h1 { margin: 0; font-size: clamp(1.5rem, 5vw, 2.1rem); line-height: 1.2; }
h2 { margin: 3rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--line); font-size: 1.35rem; }
h3 { margin: 1.5rem 0 .5rem; font-size: 1rem; }
a { color: var(--link); }
.about, .note, figcaption, .detail { color: var(--quiet); }
.about { margin: .35rem 0 1.25rem; }
.note { margin: .5rem 0; font-size: .92rem; max-width: 48rem; }
.headlines { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr));
  list-style: none; margin: 0 0 1rem; padding: 0; }
.headlines li { background: var(--card); border-left: .3rem solid var(--quiet); border-radius: .4rem;
  padding: .9rem 1rem; }
.headlines .faster { border-color: var(--good); }
.headlines .slower, .headlines .wrong { border-color: var(--bad); }
.headlines .label { color: var(--quiet); font-size: .9rem; }
.headlines .figure { display: block; font-size: 1.9rem; font-weight: 700; line-height: 1.25; }
.headlines .faster .figure { color: var(--good); }
.headlines .slower .figure, .headlines .wrong .figure { color: var(--bad); }
.headlines p { margin: .25rem 0 0; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; list-style: none; margin: 1.25rem 0 0; padding: 0;
  font-size: .92rem; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem 1.5rem; margin: 1rem 0 1.5rem; }
.figures figure { flex: 1 1 min(100%, 25rem); }
.figures .broad { flex-basis: 100%; }
figure { margin: 0; break-inside: avoid; }
figure img { display: block; width: 100%; height: auto; margin: 0 auto; background: #ffffff; border-radius: .4rem;
  padding: .35rem; }
figcaption { margin-top: .35rem; font-size: .9rem; text-align: center; }
.scroll { overflow-x: auto; margin: .25rem 0 1.5rem; border: 1px solid var(--line); border-radius: .4rem; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .65rem; text-align: right; vertical-align: top; white-space: nowrap; }
thead th { background: var(--card); font-weight: 600; white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child, .words td, .words th { text-align: left; }
.words td { white-space: normal; overflow-wrap: anywhere; }
tbody tr + tr > * { border-top: 1px solid var(--line); }
tbody th { font-weight: 400; position: sticky; left: 0; background: var(--page); white-space: normal;
  min-width: 8.5rem; }
.words tbody th { min-width: 7rem; white-space: nowrap; }
.person { background: var(--card); border-radius: .4rem; padding: .25rem 1rem 1rem; margin: 1rem 0;
  break-inside: avoid; }
.person .columns { display: grid; gap: 0 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr)); }
.person h4 { margin: .5rem 0 .25rem; font-size: .9rem; color: var(--quiet); font-weight: 600; }
.person ol { margin: 0; padding-left: 1.6rem; font-size: .92rem; }
.person li { padding: .1rem .3rem; border-radius: .25rem; }
.person li.found { background: var(--found); }
.detail { font-size: .82rem; }
details { margin: 1rem 0; }
summary { cursor: pointer; color: var(--link); }
pre { overflow-x: auto; background: var(--card); border-radius: .4rem; padding: .75rem 1rem; font-size: .8rem;
  line-height: 1.35; }
@media (max-width: 30rem) {
  tbody th { max-width: 9rem; min-width: 6.5rem; }
  th, td { padding: .35rem .5rem; }
}
@media print {
  :root { --page: #ffffff; --card: #f6f7f9; --text: #000000; --quiet: #444444; --line: #bbbbbb; --link: #000000;
    --good: #005a8c; --bad: #8c3700; --found: #e3f0fa; color-scheme: light; }
  @page { margin: 14mm; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav, details { display: none; }
  h2, h3 { break-after: avoid; }
  h2 { margin-top: 1.5rem; }
  .scroll { overflow: visible; border: 0; }
  table { font-size: 7.5pt; }
  th, td { padding: .15rem .25rem; white-space: normal; }
  tbody th { position: static; min-width: 0; }
  tr, .headlines li { break-inside: avoid; }
  .figures { display: block; }
  figure { margin: 0 0 5mm; }
  figure img { max-height: 80mm; width: auto; max-width: 100% !important; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
