"use strict";
// The search by section. search-data.js, beside this file, sets window.COURSE:
// pages [[url, title, name in the sidebar]], sections [[page, anchor, heading, text]].

const MOST = 25; // results shown
const AROUND = 110; // characters of text before and after the first word found
// Words that a question has and an answer need not have.
const EMPTY = new Set(
  ("a an and are as at be by can could do does explain find for formula from give had has have how i if in into is it its " +
    "me mean meaning my of on or our should show that the their them there these this those to use was we what when where " +
    "which who why will with you your")
    .split(" "),
);
// The same thing said otherwise.
const SAME = [
  ["install", "set up", "setting up", "set-up", "setup"],
  ["cost", "hold", "need"],
  ["error", "fault", "fail"],
  ["formula", "equation"],
];

const simple = (text) => text.toLowerCase().normalize("NFD").replace(/\p{M}/gu, "");

/** The words that count; of a question that has none, all of them. */
function wordsOf(query) {
  const all = simple(query).match(/[\p{L}\p{N}_.]*[\p{L}\p{N}_]/gu) || [];
  const telling = all.filter((word) => !EMPTY.has(word));
  return [...new Set(telling.length ? telling : all)];
}

/** Matches words that begin like this one, or like one that says the same: "costs" finds "cost". */
function pattern(word) {
  const stem = word.length > 4 ? word.replace(/(ing|es|s|ed)$/, "") : word;
  const same = SAME.find((words) => words.includes(stem)) || [stem];
  const safe = same.map((text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp("(?<![\\p{L}\\p{N}])(?:" + safe.join("|") + ")", "gu");
}

function prepare(course) {
  return course.sections.map(([page, anchor, heading, text]) => ({
    url: course.pages[page][0] + "#" + anchor,
    title: course.pages[page][1],
    heading,
    text,
    inTitle: simple(course.pages[page][1] + " " + course.pages[page][2]),
    inHeading: simple(heading),
    inText: simple(text),
    wordsInHeading: (simple(heading).match(/\p{L}{2,}/gu) || [""]).length,
  }));
}

const count = (text, regex) => (text.match(regex) || []).length;

/** Okapi BM25 over the text, more for headings, most for one that is the word; then by how many words are there. */
function rank(sections, query) {
  const words = wordsOf(query);
  const mean = sections.reduce((sum, s) => sum + s.inText.length, 0) / sections.length;
  const scores = sections.map(() => ({ score: 0, words: 0 }));
  for (const word of words) {
    const regex = pattern(word);
    const hits = sections.map((s) => ({
      text: count(s.inText, regex),
      heading: count(s.inHeading, regex),
      title: count(s.inTitle, regex),
    }));
    const having = hits.filter((h) => h.text || h.heading || h.title).length;
    const rare = Math.log(1 + (sections.length - having + 0.5) / (having + 0.5));
    hits.forEach((h, i) => {
      if (!h.text && !h.heading && !h.title) return;
      const length = 0.4 + 0.6 * (sections[i].inText.length / mean);
      const often = (2.2 * h.text) / (h.text + 1.2 * length);
      scores[i].score += rare * (often + (h.heading ? 1.5 + 2.5 * Math.min(1, h.heading / sections[i].wordsInHeading) : 0) + (h.title ? 1.2 : 0));
      scores[i].words += 1;
    });
  }
  const exact = simple(query).trim();
  return sections
    .map((section, i) => {
      const share = scores[i].words / words.length;
      const named = section.inHeading.split(".").pop() === exact ? 40 : 0;
      return { section, score: scores[i].score * share + named };
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
  const start = Math.max(0, best.at - AROUND / 2);
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

function show(results, query) {
  const words = wordsOf(query);
  const list = document.getElementById("results");
  list.replaceChildren();
  for (const { section } of results) {
    const item = document.createElement("li");
    const link = document.createElement("a");
    link.href = section.url;
    marked(link, section.heading, words);
    const where = document.createElement("span");
    where.textContent = section.heading === section.title ? "" : section.title;
    const text = document.createElement("p");
    marked(text, excerpt(section, words), words);
    item.append(link, where, text);
    list.append(item);
  }
  const found = document.getElementById("found");
  const number = results.length === MOST ? "The best " + MOST : results.length || "No";
  found.textContent = query ? number + (results.length === 1 ? " section" : " sections") + " for “" + query + "”" : "";
}

const sections = prepare(window.COURSE);
const query = new URLSearchParams(location.search).get("q") || "";
const field = document.getElementById("query");
field.value = query;
if (query) show(rank(sections, query), query);
else field.focus();
let waiting = 0;
field.addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    const now = field.value.trim();
    history.replaceState(null, "", now ? "?q=" + encodeURIComponent(now) : location.pathname);
    show(now ? rank(sections, now) : [], now);
  }, 150);
});
