// How the answers of each kind of model look.

import { bar, el, percent } from "./dom.js";

/** The whole answer of a model. */
export function whole(task, output) {
  return (looks[task]?.whole ?? raw)(output);
}

/** The answer for one sentence, as a line of a list. */
export function part(task, input, output) {
  const { text, tone } = (looks[task]?.part ?? (() => ({ text: "" })))(output);
  return el("li", {}, el("span", {}, input), el("span", { className: "tag", data: tone ? { tone } : {} }, text));
}

const looks = {
  "sentiment-analysis": { whole: sentiment, part: (it) => ({ text: `${words[it.label]} ${signed(it.compound)}`, tone: it.label }) },
  "language-identification": { whole: language, part: (it) => ({ text: it.name ? `${it.name} ${percent(it.confidence)}` : "No idea" }) },
  "keyword-extraction": { whole: keywords, part: (it) => ({ text: it.keywords[0]?.text ?? "—" }) },
  "text-generation": { whole: (it) => el("p", { className: "written" }, it.text) },
};

const words = { positive: "Positive", neutral: "Neutral", negative: "Negative" };
const signed = (number) => `${number > 0 ? "+" : number < 0 ? "−" : ""}${Math.abs(number).toFixed(2)}`;

const languages = new Intl.DisplayNames(["en"], { type: "language" });

function sentiment(it) {
  return el("div", {},
    el("p", { className: "headline", data: { tone: it.label } },
      el("strong", {}, words[it.label]), el("span", {}, `score ${signed(it.compound)}`)),
    el("div", { className: "scale", ariaHidden: "true" }, el("i", { css: { at: `${(it.compound + 1) * 50}%` } })),
    el("div", { className: "scale-ends quiet", ariaHidden: "true" }, el("span", {}, "−1 negative"), el("span", {}, "positive +1")),
    facts(["Positive share", percent(it.positive)], ["Neutral share", percent(it.neutral)], ["Negative share", percent(it.negative)]),
    note(it));
}

function language(it) {
  if (!it.code) return el("p", { className: "headline" }, el("strong", {}, "No idea"), el("span", {}, "there is too little to read"));
  return el("div", {},
    el("p", { className: "headline" }, el("strong", {}, it.name), el("span", { lang: it.code }, it.native_name)),
    bar(it.confidence),
    facts(
      ["Confidence", `${percent(it.confidence)}, ${it.reliable ? "reliable" : "a guess: more text would help"}`],
      ["Script", it.script], ["Code", it.code]));
}

function keywords(it) {
  if (!it.keywords.length) return el("div", {}, el("p", { className: "quiet" }, "No keywords in this text."), note(it));
  const rows = it.keywords.map((word) =>
    el("li", {}, el("b", {}, word.text), bar(word.relevance), el("span", {}, percent(word.relevance))));
  return el("div", {}, el("ul", { className: "keywords" }, ...rows), facts(["Read as", languages.of(it.language)]), note(it));
}

/** A model of a kind that this page doesn't know yet. */
const raw = (output) => el("pre", { className: "written mono" }, JSON.stringify(output, null, 2));

const note = (it) => (it.note ? el("p", { className: "note" }, it.note) : null);

const facts = (...rows) =>
  el("dl", { className: "facts" }, ...rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
