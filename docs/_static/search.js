"use strict";
// The search by section. search-data.js, beside this file, sets window.COURSE:
// pages [[url, title, name in the sidebar]], sections [[page, anchor, heading, heading above, text]].

const MOST = 25; // results shown
const AROUND = 110; // characters of text before and after the first word found
const WHOLE = 3; // letters of a word that is looked for whole: "mac" is not the beginning of "machine"
// Words that a question has and an answer need not have.
const EMPTY = new Set(
  ("a an and are as at be by can could do does explain find for from give had has have how i if in into is it its many " +
    "me much my of on or our per should show that the their them there these this those to use was we what when where " +
    "which who why will with you your")
    .split(" "),
);
// The same thing said otherwise. A query that has several words of a phrase in order has the phrase.
const SAME = [
  ["install", "set up", "setting up", "set-up", "setup"],
  ["cost", "hold", "need", "price"],
  ["error", "fault", "fail", "refuse"],
  ["formula", "equation"],
  ["oom", "out of memory"],
  ["vram", "memory"],
  ["gpu", "gpus"],
  ["4bit", "4-bit", "4 bit", "four bit"],
  ["finetun", "fine-tun", "fine tun"],
  ["lr", "learning rate", "hyperparameter"],
  ["memorise", "overfit"],
  ["throughput", "tokens a second"],
  ["docker", "podman", "container"],
  ["deduplication", "dedup", "duplicate"],
  ["tying", "tied", "tie"],
  ["mac", "macos", "mps"],
  ["alpha", "α"],
  ["beta", "β"],
  ["gamma", "γ"],
  ["delta", "δ"],
  ["epsilon", "ε"],
  ["lambda", "λ"],
  ["pi", "π"],
  ["sigma", "σ"],
];
// Words that may say which page is wanted rather than what about: such a page has them, whatever its text is.
const KINDS = [
  { words: ["formula", "equation", "source", "code", "function", "api", "signature", "argument"], pages: /^reference\// },
  { words: ["paper", "arxiv", "cite", "citation"], pages: /^papers\./ },
  { words: ["mean", "definition", "first", "introduce"], pages: /^glossary\./ },
  { words: ["error", "crash", "fail", "problem", "refuse", "broken"], pages: /^TROUBLESHOOTING\./ },
  { words: ["install", "setup"], pages: /^(LAB_PREP|QUICKSTART)\./ },
  { words: ["real"], pages: /^SCALES\./ },
];
const GROUP = new Map(SAME.flatMap((words) => words.map((word) => [stemOf(word), words])));
const PHRASES = SAME.flatMap((words) =>
  words.filter((text) => /[ -]/.test(text)).map((text) => [new RegExp(text + "(?:s(?!\\p{L}))?", "gu"), words[0]]),
);
const WANTED = 1.6; // times the score of a page of that kind
const NAMES = /^(glossary|reference\/)/; // where terms and functions are told: their names weigh more
const NAME = 1.4; // times what a heading scores there
const NAMED = 40; // more for the very name

/** Small letters without accents, spelt as the course does: "tokenizer" is "tokeniser". As long as `text`, letter by letter. */
const simple = (text) => text.toLowerCase().normalize("NFD").replace(/\p{M}/gu, "").replace(/iz(?=[eai])/g, "is");

/** The word without its ending, if four letters are left: "merg" of "merging", "forget" of "forgetting". */
function stemOf(word) {
  const [, stem, ending] = word.match(/^(.{4,}?)((?<=is)ations?|ings?|ies|ed|es|e|s)$/) || [word, word, ""];
  if (ending === "s" && /[sui]$/.test(stem)) return word; // "loss", "corpus"
  return /^(ing|ed)/.test(ending) ? stem.replace(/([bdgmnprt])\1$/, "$1") : stem;
}

/** The words of a query that count; of one that has none, all of them. */
function wordsOf(query) {
  const joined = PHRASES.reduce((text, [phrase, word]) => text.replace(phrase, word), simple(query));
  const all = joined.match(/(?<!\S)-\d+|[\p{L}\p{N}_.]*[\p{L}\p{N}_]/gu) || [];
  const telling = all.filter((word) => !EMPTY.has(word));
  return (telling.length ? telling : all).map((word) => word.replace(/^(ft|ftlib)\./, ""));
}

/** Matches words that begin like this one, or like one that says the same: "cost" finds "costs". */
function pattern(word) {
  const same = (GROUP.get(word) || [word]).map((text) => (/[ -]/.test(text) ? text : stemOf(text)));
  const safe = same.map((text) => {
    const escaped = text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    return text.length > WHOLE ? escaped : escaped + "(?:'?s)?(?![\\p{L}\\p{N}])";
  });
  return new RegExp("(?<![\\p{L}\\p{N}])(?:" + safe.join("|") + ")", "gu");
}

/** A heading without its number, and without an exercise's minutes: what it is called. */
const nameOf = (heading) => heading.replace(/^(ftlib\.|Exercise \d+ · |\d+ · |\d+\. )/, "").replace(/ · \d+ min.*$/, "");

function prepare(course) {
  return course.sections.map(([page, anchor, heading, above, text]) => ({
    url: course.pages[page][0] + "#" + anchor,
    title: course.pages[page][1],
    heading,
    above,
    text,
    inTitle: simple(course.pages[page].slice(1).join(" ") + " " + above),
    inHeading: simple(nameOf(heading)),
    inText: simple(text),
    named: tellingIn(simple(nameOf(heading))),
  }));
}

const count = (text, regex) => (text.match(regex) || []).length;

/** How many words a heading has; small words do not count. */
const tellingIn = (heading) => (heading.match(/[\p{L}\p{N}]+/gu) || []).filter((word) => !EMPTY.has(word)).length;

/** The share of a heading's words that the query has. */
function shareNamed(section, words) {
  const any = new RegExp(words.map((word) => pattern(word).source + "[\\p{L}\\p{N}]*").join("|"), "gu");
  return Math.min(1, tellingIn((section.inHeading.match(any) || []).join(" ")) / (section.named || 1));
}

const kindOf = (word) => KINDS.find((kind) => kind.words.some((other) => stemOf(other) === word));

/** Okapi BM25 over the text, more for what is above it and for headings, most for a heading that is named whole;
 * then by the share of the words that are there.
 */
function rank(sections, words) {
  const mean = sections.reduce((sum, s) => sum + s.inText.length, 0) / sections.length;
  const scores = sections.map(() => ({ text: 0, heading: 0, words: 0, inHeading: 0, factor: 1 }));
  for (const word of words) {
    const regex = pattern(word);
    const kind = kindOf(word);
    const hits = sections.map((s) => ({
      text: count(s.inText, regex),
      heading: count(s.inHeading, regex),
      title: count(s.inTitle, regex),
    }));
    const having = hits.filter((h) => h.text || h.heading || h.title).length;
    const rare = Math.log(1 + (sections.length - having + 0.5) / (having + 0.5));
    hits.forEach((h, i) => {
      const score = scores[i];
      const wanted = kind && kind.pages.test(sections[i].url);
      const length = 0.4 + 0.6 * (sections[i].inText.length / mean);
      score.text += rare * ((2.2 * h.text) / (h.text + 1.2 * length) + (h.title ? 0.6 : 0));
      score.heading += h.heading ? rare : 0;
      score.words += h.text || h.heading || h.title || wanted ? 1 : 0;
      score.inHeading += h.heading || wanted ? 1 : 0;
      if (wanted) score.factor = WANTED;
    });
  }
  return sections
    .map((section, i) => {
      const { text, heading, words: found, inHeading, factor } = scores[i];
      const share = heading ? shareNamed(section, words) : 0;
      const name = NAMES.test(section.url);
      const whole = name && share === 1 && inHeading === words.length ? NAMED : 0;
      const head = heading * (1.5 + 2.5 * share) * (name ? NAME : 1);
      return { section, score: (text + head) * (found / words.length) * factor + whole };
    })
    .filter((result) => result.score > 0)
    .sort((a, b) => b.score - a.score)
    .slice(0, MOST);
}

/** The text around the first place with most of the words. */
function excerpt(section, words) {
  let best = { at: 0, found: 0 };
  const places = words.flatMap((word) => [...section.inText.matchAll(pattern(word))].map((m) => m.index));
  for (const at of places.slice(0, 200)) {
    const window = section.inText.slice(at, at + 2 * AROUND);
    const found = words.filter((word) => pattern(word).test(window)).length;
    if (found > best.found) best = { at, found };
  }
  const before = Math.max(0, best.at - AROUND / 2);
  const start = before ? section.inText.indexOf(" ", before) + 1 : 0; // at a word's beginning
  const text = section.text.normalize("NFC").slice(start, start + 2.5 * AROUND);
  return (start ? "… " : "") + text + (start + 2.5 * AROUND < section.text.length ? " …" : "");
}

/** Text into an element, with the words marked. */
function marked(element, text, words) {
  const lower = simple(text);
  const same = lower.length === text.length;
  let at = 0;
  const any = new RegExp(words.map((word) => pattern(word).source + "[\\p{L}\\p{N}]*").join("|"), "gu");
  for (const match of same ? lower.matchAll(any) : []) {
    element.append(text.slice(at, match.index));
    const mark = document.createElement("mark");
    mark.textContent = text.slice(match.index, match.index + match[0].length);
    element.append(mark);
    at = match.index + match[0].length;
  }
  element.append(text.slice(at));
}

// --- a word that is nowhere -----------------------------------------------------------------------

/** Of the words of all sections the nearest, such as "distilled" for "distiled"; "" if none is near. */
function nearest(all, word) {
  const most = word.length < 8 ? 1 : 2;
  let best = { word: "", distance: most + 1 };
  for (const other of all) {
    if (other[0] !== word[0] || Math.abs(other.length - word.length) > most) continue;
    const distance = edits(word, other);
    if (distance < best.distance) best = { word: other, distance };
  }
  return best.word;
}

/** Letters to change, add, leave out or swap with the next, so that a becomes b. */
function edits(a, b) {
  const rows = [[...Array(b.length + 1).keys()]];
  for (let i = 1; i <= a.length; i++) {
    rows.push([i]);
    for (let j = 1; j <= b.length; j++) {
      const change = rows[i - 1][j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1);
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      const swap = swapped ? rows[i - 2][j - 2] + 1 : Infinity;
      rows[i].push(Math.min(change, swap, rows[i - 1][j] + 1, rows[i][j - 1] + 1));
    }
  }
  return rows[a.length][b.length];
}

/** {stems: what to look for; instead: [[a word that is nowhere, its nearest or ""]]}. */
function corrected(sections, query) {
  const isSomewhere = (regex) => sections.some((s) => (s.inTitle + " " + s.inHeading + " " + s.inText).search(regex) >= 0);
  const words = [...new Set(wordsOf(query))];
  const nowhere = words.filter((word) => !kindOf(stemOf(word)) && !isSomewhere(pattern(stemOf(word))));
  const all = nowhere.length ? new Set(sections.flatMap((s) => (s.inHeading + " " + s.inText).match(/\p{L}{4,}/gu) || [])) : [];
  const instead = new Map(nowhere.map((word) => [word, nearest(all, word)]));
  const found = words.map((word) => (instead.has(word) ? instead.get(word) : word)).filter(Boolean);
  return { stems: [...new Set(found.map(stemOf))], instead: [...instead] };
}

// --- the page -------------------------------------------------------------------------------------

function show(sections, query) {
  const { stems, instead } = corrected(sections, query);
  const results = stems.length ? rank(sections, stems) : [];
  document.getElementById("results").replaceChildren(...results.map((result) => item(result.section, stems)));
  const number = results.length === MOST ? "The best " + MOST : results.length || "No";
  const sentences = [number + (results.length === 1 ? " section" : " sections") + " for “" + query + "”."];
  for (const [word, near] of instead) {
    sentences.push("“" + word + "” is nowhere" + (near ? "; “" + near + "” was looked for." : "."));
  }
  document.getElementById("found").textContent = query ? sentences.join(" ") : "";
}

function item(section, words) {
  const link = document.createElement("a");
  link.href = section.url;
  marked(link, section.heading, words);
  const where = document.createElement("span");
  where.textContent = [section.title, section.above].filter((name) => name && name !== section.heading).join(" › ");
  const text = document.createElement("p");
  marked(text, excerpt(section, words), words);
  const entry = document.createElement("li");
  entry.append(link, where, text);
  return entry;
}

const sections = prepare(window.COURSE);
const field = document.getElementById("query");
field.value = new URLSearchParams(location.search).get("q") || "";
if (field.value) show(sections, field.value.trim());
else field.focus();
let waiting = 0;
field.addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    const now = field.value.trim();
    history.replaceState(null, "", now ? "?q=" + encodeURIComponent(now) : location.pathname);
    show(sections, now);
  }, 150);
});
