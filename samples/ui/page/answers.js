// Renders the results of the models.

import { bar, el, percent } from "./dom.js";

/** Renders the result for a whole text. */
export function renderResult(task, output) {
  return (renderers[task]?.result ?? renderJson)(output);
}

/** Renders the result for one sentence as a list item. */
export function renderPart(task, input, output) {
  const { text, tone } = (renderers[task]?.part ?? (() => ({ text: "" })))(output);
  return el("li", {}, el("span", {}, input), el("span", { className: "tag", data: tone ? { tone } : {} }, text));
}

const renderers = {
  "sentiment-analysis": { result: sentiment, part: (output) => ({ text: `${labels[output.label]} ${signed(output.compound)}`, tone: output.label }) },
  "language-identification": { result: language, part: (output) => ({ text: output.name ? `${output.name} ${percent(output.confidence)}` : "Unknown" }) },
  "keyword-extraction": { result: keywords, part: (output) => ({ text: output.keywords[0]?.text ?? "—" }) },
  "text-generation": { result: (output) => el("p", { className: "written" }, output.text) },
};

const labels = { positive: "Positive", neutral: "Neutral", negative: "Negative" };
const signed = (number) => `${number > 0 ? "+" : number < 0 ? "−" : ""}${Math.abs(number).toFixed(2)}`;

const languages = new Intl.DisplayNames(["en"], { type: "language" });

function sentiment(output) {
  return el("div", {},
    el("p", { className: "headline", data: { tone: output.label } },
      el("strong", {}, labels[output.label]), el("span", {}, `score ${signed(output.compound)}`)),
    el("div", { className: "scale", ariaHidden: "true" }, el("i", { css: { at: `${(output.compound + 1) * 50}%` } })),
    el("div", { className: "scale-ends muted", ariaHidden: "true" }, el("span", {}, "−1 negative"), el("span", {}, "positive +1")),
    facts(["Positive share", percent(output.positive)], ["Neutral share", percent(output.neutral)], ["Negative share", percent(output.negative)]),
    note(output));
}

function language(output) {
  if (!output.code) return el("p", { className: "headline" }, el("strong", {}, "Unknown"), el("span", {}, "the text is too short"));
  return el("div", {},
    el("p", { className: "headline" }, el("strong", {}, output.name), el("span", { lang: output.code }, output.native_name)),
    bar(output.confidence),
    facts(
      ["Confidence", `${percent(output.confidence)}, ${output.reliable ? "reliable" : "a guess; try a longer text"}`],
      ["Script", output.script], ["Code", output.code]));
}

function keywords(output) {
  if (!output.keywords.length) return el("div", {}, el("p", { className: "muted" }, "No keywords in this text."), note(output));
  const rows = output.keywords.map((keyword) =>
    el("li", {}, el("b", {}, keyword.text), bar(keyword.relevance), el("span", {}, percent(keyword.relevance))));
  return el("div", {}, el("ul", { className: "keywords" }, ...rows), facts(["Language", languages.of(output.language)]), note(output));
}

/** For tasks that have no renderer. */
const renderJson = (output) => el("pre", { className: "written mono" }, JSON.stringify(output, null, 2));

const note = (output) => (output.note ? el("p", { className: "note" }, output.note) : null);

const facts = (...rows) =>
  el("dl", { className: "facts" }, ...rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
