"""The style sheet of the HTML report: light and dark, system fonts, nothing fetched."""

CSS = """
:root {
  --paper: #f6f7f9; --card: #ffffff; --ink: #1f2430; --muted: #626b7b; --line: #e3e6ec; --accent: #4263eb;
  --shadow: 0 1px 2px rgb(20 25 40 / 6%), 0 6px 20px rgb(20 25 40 / 5%);
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #12141a; --card: #1b1e27; --ink: #e8eaf0; --muted: #9aa3b5; --line: #2c313d; --accent: #7f9cff;
    --shadow: none;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
main { max-width: 1000px; margin: 0 auto; padding: 3rem 1.25rem 5rem; }
h1 { font-size: clamp(1.7rem, 4vw, 2.4rem); line-height: 1.15; letter-spacing: -0.02em; margin: 0 0 1.6rem; }
header::before {
  content: ""; display: block; width: 3.5rem; height: 5px; border-radius: 3px; margin-bottom: 1.2rem;
  background: linear-gradient(90deg, var(--accent), #f59f00);
}
h2 { font-size: 1.25rem; letter-spacing: -0.01em; line-height: 1.3; margin: 0 0 .9rem; }
p { margin: 0 0 .8rem; max-width: 70ch; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .8rem; margin: 0; }
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: .85rem 1rem;
  box-shadow: var(--shadow);
}
dt { color: var(--muted); font-size: .82rem; line-height: 1.35; }
dd { margin: .15rem 0 0; font-size: 1.45rem; font-weight: 650; line-height: 1.25; letter-spacing: -0.01em;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
section { margin-top: 2.8rem; }
section.more { margin-top: 1.2rem; }
figure {
  margin: 0; padding: 1rem; background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  box-shadow: var(--shadow); text-align: center;
}
img { max-width: 100%; height: auto; border-radius: 6px; vertical-align: middle; }
img.pixelated { image-rendering: pixelated; }
figcaption { color: var(--muted); font-size: .88rem; line-height: 1.45; margin-top: .7rem; text-align: left; }
.side { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(260px, 100%), 1fr)); gap: 1rem; }
.scroll {
  overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  box-shadow: var(--shadow);
}
table { border-collapse: collapse; width: 100%; font-size: .93rem; font-variant-numeric: tabular-nums; }
th, td { padding: .55rem 1rem; text-align: left; border-bottom: 1px solid var(--line); }
th { color: var(--muted); font-weight: 600; font-size: .82rem; white-space: nowrap; }
tbody tr:last-child td { border-bottom: 0; }
tbody tr:hover td { background: color-mix(in srgb, var(--accent) 7%, transparent); }
.number { text-align: right; white-space: nowrap; }
.note { color: var(--muted); font-size: .88rem; margin-top: .6rem; }
@media print { body { background: #fff; } figure, .scroll, .card { box-shadow: none; break-inside: avoid; } }
"""
