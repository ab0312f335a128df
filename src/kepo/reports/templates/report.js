"use strict";
(() => {
  const source = document.getElementById("data");
  if (!source) return;
  const { arms, runs, images, cards } = JSON.parse(source.textContent);
  const PAGE = 20;
  const filters = ["arm", "run", "modality", "task", "correct", "gate", "injected", "failed", "text"];
  const field = Object.fromEntries(filters.map((name) => [name, document.getElementById(`f-${name}`)]));
  const list = document.getElementById("cards");
  const count = document.getElementById("count");
  const more = document.getElementById("more");
  let found = [];

  // Texts of models only ever become text nodes.
  const make = (tag, text, className) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    return element;
  };
  const add = (parent, ...children) => { parent.append(...children.filter(Boolean)); return parent; };

  const fill = (select, values) => {
    select.append(new Option("all", ""));
    for (const [value, label] of values) select.append(new Option(label, value));
    select.closest("label").hidden = values.length < 2;
  };
  const present = (key) => [...new Set(cards.map((card) => card[key]))].sort();
  const numbered = (key, names) => present(key).sort((a, b) => a - b).map((place) => [String(place), names[place]]);
  fill(field.arm, numbered("arm", arms));
  fill(field.run, numbered("run", runs));
  fill(field.modality, present("modality").filter(Boolean).map((name) => [name, name]));
  fill(field.task, present("task").filter(Boolean).map((name) => [name, name]));

  const haystack = (card) => [
    card.id, card.question, ...card.options, card.hint, ...card.tried, card.before, card.reasoning, card.after,
  ].join("\n").toLowerCase();
  const hays = cards.map(haystack);

  const matches = (card, place) => {
    for (const key of ["arm", "run", "modality", "task", "correct"]) {
      if (field[key].value && String(card[key]) !== field[key].value) return false;
    }
    if (field.gate.value && (card.gate > 0 ? "open" : "closed") !== field.gate.value) return false;
    if (field.injected.checked && !card.injected) return false;
    if (field.failed.checked && !card.failed) return false;
    return hays[place].includes(field.text.value.trim().toLowerCase());
  };

  const badge = (text, className) => make("li", text, className);
  const badges = (card) => {
    const verdict = card.correct === null ? badge("not scored") : card.correct ? badge("✓ correct", "correct") : badge("✗ incorrect", "incorrect");
    const gate = !card.gate ? "gate closed" : card.gate >= 1 ? "gate open" : `gate open for ${Math.round(100 * card.gate)} % of tokens`;
    const all = [verdict, badge(gate)];
    if (card.injected) all.push(badge(`◆ injected, attempt ${card.attempt ?? "?"}`, "special"));
    if (card.failed) all.push(badge("all-failed group", "special"));
    if (card.failure) all.push(badge(`nothing kept: ${card.failure}`));
    return add(make("ul", undefined, "badges"), ...all);
  };

  const options = (card) => {
    const items = card.options.map((text, place) => {
      const letter = String.fromCharCode(65 + place);
      const truth = letter === card.truth;
      return make("li", `${letter}) ${text}${truth ? "  (true answer)" : ""}`, truth ? "truth" : "");
    });
    return items.length ? add(make("ol"), ...items) : make("div", `True answer: ${card.truth}`);
  };

  const part = (parent, title, text, className) => {
    if (text) add(parent, make("dt", title), make("dd", text, className));
  };
  const score = (value) => (value === null ? "n/a" : String(Math.round(1000 * value) / 1000));

  const picture = (card) => {
    const box = make("div");
    for (const place of card.images) {
      if (place === null) { add(box, make("div", "image not found", "missing")); continue; }
      const image = make("img");
      image.alt = `Image of question ${card.id}`;
      image.onload = () => image.classList.toggle("small", image.naturalWidth <= 96);
      image.src = images[place];
      add(box, image);
    }
    return box;
  };

  const draw = (card) => {
    const article = make("article", undefined, card.images.length ? "card" : "card plain");
    const body = make("div");
    const where = [card.replicate, `step ${card.step}`, card.modality, card.task, `question ${card.id}`];
    add(body, make("h3", arms[card.arm]), make("p", where.filter(Boolean).join(" · "), "meta"), badges(card));
    const texts = make("dl");
    part(texts, "Question", card.question, "text");
    add(texts, add(make("dd"), options(card)));
    part(texts, card.level === null ? "Hint it was sampled under" : `Hint it was sampled under (level ${card.level})`, card.hint, "text");
    part(texts, "Before the reasoning", card.before.replace(/^\s*<think\s*>\s*$/i, ""), "text");
    part(texts, "Reasoning", card.reasoning, "text");
    part(texts, "Answer", card.after.replace(/^\s*<\/think\s*>\s*/i, ""), "text");
    const rewards = card.rewards.map(([name, value]) => `${name} ${score(value)}`).join(", ");
    part(texts, "Scores", `reward ${score(card.reward)} (${rewards}), advantage ${score(card.advantage)}, ${card.tokens ?? "?"} tokens`, "scores");
    add(body, texts);
    if (card.tried.length) {
      const tried = make("details");
      add(tried, make("summary", `All hints tried for this group (${card.tried.length})`));
      const inside = make("dl");
      card.tried.forEach((hint, place) => part(inside, `Hint ${place + 1}, as the teacher wrote it`, hint, "text"));
      add(body, add(tried, inside));
    }
    return card.images.length ? add(article, picture(card), body) : add(article, body);
  };

  const page = () => {
    const shown = list.childElementCount;
    list.append(...found.slice(shown, shown + PAGE).map(draw));
    more.hidden = list.childElementCount >= found.length;
  };
  const update = () => {
    found = cards.filter(matches);
    list.replaceChildren();
    count.textContent = `${found.length} of ${cards.length} rollouts`;
    page();
  };

  let waiting = 0;
  field.text.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(update, 150); });
  for (const name of filters) if (name !== "text") field[name].addEventListener("change", update);
  more.addEventListener("click", page);
  document.getElementById("f-reset").addEventListener("click", () => {
    for (const name of filters) {
      if (field[name].type === "checkbox") field[name].checked = false;
      else field[name].value = "";
    }
    update();
  });
  update();
})();
