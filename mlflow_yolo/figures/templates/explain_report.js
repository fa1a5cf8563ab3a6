"use strict";
(() => {
  const read = (name) => JSON.parse(document.getElementById(name).textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const data = read("explain");
  const colors = (text) => new Uint32Array(bytes(text).buffer);
  const tables = { false: colors(data.colors.unsigned), true: colors(data.colors.signed) };
  const TOP = 254, HEIGHT = "18rem", SEARCH_FROM = 10, SVG = "http://www.w3.org/2000/svg";

  function make(tag, properties = {}, ...children) {
    const { dataset, style, ...others } = properties, made = Object.assign(document.createElement(tag), others);
    for (const [name, value] of Object.entries(style ?? {})) made.style.setProperty(name, value);
    made.append(...children);
    return made;
  }

  function text(value) {
    const size = Math.abs(value), rounded = Number(value.toPrecision(3));
    const far = size !== 0 && (size < 1e-3 || size >= 1e5);
    return (far ? rounded.toExponential().replace("e+", "e") : String(rounded)).replaceAll("-", "−");
  }

  // ---------------------------------------------------------------- maps

  /** Where a line of `n` pixels reads a line of `cells`: two neighbours and the second one's weight. */
  function places(cells, n) {
    return Array.from({ length: n }, (_, i) => {
      const at = ((i + 0.5) * cells) / n - 0.5, before = Math.floor(at), last = cells - 1;
      return [Math.min(last, Math.max(0, before)), Math.min(last, Math.max(0, before + 1)), at - before];
    });
  }

  /** The map in levels for each pixel, by straight lines between the cells' centres. */
  function enlarge(levels, [h, w], [height, width]) {
    const rows = places(h, height), columns = places(w, width), result = new Uint8Array(height * width);
    let i = 0;
    for (const [top, bottom, down] of rows) {
      for (const [left, right, along] of columns) {
        const upper = levels[top * w + left] * (1 - along) + levels[top * w + right] * along;
        const lower = levels[bottom * w + left] * (1 - along) + levels[bottom * w + right] * along;
        result[i++] = Math.round(upper * (1 - down) + lower * down);
      }
    }
    return result;
  }

  function paint(canvas, levels, [height, width], signed) {
    canvas.height = height;
    canvas.width = width;
    const context = canvas.getContext("2d"), image = context.createImageData(width, height), table = tables[signed];
    const pixels = new Uint32Array(image.data.buffer);
    for (let i = 0; i < levels.length; i++) pixels[i] = table[levels[i]];
    context.putImageData(image, 0, 0);
  }

  // ---------------------------------------------------------------- examples

  function boxes(marks) {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", "0 0 1 1");
    svg.setAttribute("preserveAspectRatio", "none");
    for (const { box: [x1, y1, x2, y2], kind } of marks) {
      for (const name of ["halo", kind]) {
        const rect = document.createElementNS(SVG, "rect");
        const place = { x: x1, y: y1, width: x2 - x1, height: y2 - y1, class: name };
        for (const [key, value] of Object.entries(place)) rect.setAttribute(key, value);
        svg.append(rect);
      }
    }
    return svg;
  }

  /** True labels stand above their box, the others below; inside it where the picture ends. */
  function label({ box: [x1, y1, x2, y2], label: words, kind }) {
    const percent = (share) => `${100 * share}%`, leftmost = x1 <= 1 - x2;
    const fromLeft = { left: percent(x1), "max-width": percent(1 - x1) };
    const fromRight = { right: percent(1 - x2), "max-width": percent(x2) };
    const above = y1 > 0.1 ? { bottom: percent(1 - y1) } : { top: percent(y1) };
    const below = y2 < 0.9 ? { top: percent(y2) } : { bottom: percent(1 - y2) };
    const style = { ...(leftmost ? fromLeft : fromRight), ...(kind === "true" ? above : below) };
    return make("span", { className: kind, title: words, textContent: words, style });
  }

  function view(example, ...over) {
    const [height, width] = example.size;
    const image = make("img", { src: example.picture, alt: `${example.title}. ${example.caption}` });
    const style = { "aspect-ratio": `${width} / ${height}`, width: `min(100%, ${HEIGHT} * ${width / height})` };
    return make("div", { className: "view", style }, image, ...over);
  }

  function scale(layer, here) {
    const line = (...words) => make("div", { className: "ends" }, ...words);
    if (layer.scale === 0) return make("div", { className: "scale" }, line("zero everywhere"));
    const bar = make("canvas", { className: "bar" });
    paint(bar, Uint8Array.from({ length: TOP + 1 }, (_, i) => i), [1, TOP + 1], layer.signed);
    const side = (words) => make("span", { title: words, textContent: words });
    const numbers = line(layer.signed ? text(-layer.scale) : "0", here, text(layer.scale));
    return make("div", { className: "scale" }, bar, numbers, line(...layer.ends.map(side)));
  }

  function mapPanel(example, layer) {
    const canvas = make("canvas"), here = make("output"), [height, width] = example.size;
    const enlarged = enlarge(bytes(layer.levels), layer.grid, example.size);
    paint(canvas, enlarged, example.size, layer.signed);
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", layer.title);
    // Blended, not filtered: a filtered picture would go to paper as pixels of its own, ten times the JPEG.
    const shown = view(example, make("div", { className: "grey" }), canvas, boxes(example.marks));
    shown.addEventListener("pointermove", (event) => {
      const box = shown.getBoundingClientRect();
      const pixel = (share, n) => Math.min(n - 1, Math.max(0, Math.floor(share * n)));
      const row = pixel((event.clientY - box.top) / box.height, height);
      const level = enlarged[row * width + pixel((event.clientX - box.left) / box.width, width)];
      here.textContent = `here ${text(layer.scale * (layer.signed ? (2 * level - TOP) / TOP : level / TOP))}`;
    });
    shown.addEventListener("pointerleave", () => { here.textContent = ""; });
    const title = make("div", { className: "of", title: layer.title, textContent: layer.title });
    return make("div", { className: "panel" }, title, shown, scale(layer, here));
  }

  function exampleOf(example, i) {
    const first = view(example, boxes(example.marks), ...example.marks.filter((mark) => mark.label).map(label));
    const panels = [make("div", { className: "panel" }, make("div", { className: "of" }, "picture"), first)];
    panels.push(...example.layers.map((layer) => mapPanel(example, layer)));
    const style = { "--wide": Math.min(4, panels.length), "--narrow": Math.min(2, panels.length) };
    return make(
      "div", { className: "example", style },
      make("p", { className: "title" }, `${i + 1}. ${example.title}`),
      make("p", { className: "caption", textContent: example.caption }),
      make("div", { className: "panels" }, ...panels),
    );
  }

  // ---------------------------------------------------------------- a browser: a list, and what is chosen in it

  function fill(article, place, index) {
    const browser = data.browsers[place], item = browser.items[index];
    const facts = make("dl");
    browser.columns.forEach((name, i) => {
      if (item.facts[i] !== "–") facts.append(make("div", {}, make("dt", {}, name), make("dd", {}, item.facts[i])));
    });
    article.replaceChildren(make("h3", {}, item.name), facts);
    const groups = read(`explain-${place}-${index}`);
    if (!groups.length) article.append(make("p", {}, "No examples."));
    for (const group of groups) {
      if (group.heading) article.append(make("h4", {}, group.heading));
      article.append(make("div", { className: "examples" }, ...group.examples.map(exampleOf)));
    }
    article.style.minHeight = "";
  }

  function build(browser, place) {
    const first = browser.numeric.indexOf(true), n = browser.items.length;
    const state = { chosen: 0, sort: "given", down: false, query: "", all: false };
    const button = (words) => make("button", { type: "button", className: "plain", textContent: words });
    const search = make("input", { type: "search", placeholder: `Search ${n} ${browser.plural}` });
    search.ariaLabel = `Search ${browser.plural}`;
    const sort = make("select", { ariaLabel: "Sort by" }), turn = button("");
    const count = make("p", { className: "count", ariaLive: "polite" });
    const list = make("ul", { className: "list", tabIndex: 0, role: "listbox", ariaLabel: browser.heading });
    const before = button("‹ previous"), after = button("next ›");
    const strength = make("input", { type: "range", min: 0, max: 100, value: 70 });
    const marks = make("input", { type: "checkbox", checked: true }), all = make("input", { type: "checkbox" });
    const chosen = make("div", { className: "chosen" });
    const options = browser.items.map((item, i) => {
      const name = make("span", { className: "name", title: item.name, textContent: item.name });
      const option = make("li", { role: "option", id: `explain-option-${place}-${i}` }, name, make("span"));
      option.addEventListener("click", () => choose(i));
      return option;
    });

    /** Items in the order of the list; those without a value stand last either way. */
    function shown() {
      const key = (i) => browser.items[i].keys[state.sort], sign = state.down ? -1 : 1;
      const orders = {
        given: (a, b) => sign * (a - b),
        name: (a, b) => sign * browser.items[a].name.localeCompare(browser.items[b].name, undefined, { numeric: true }),
      };
      const byFact = (a, b) => (key(a) === "") - (key(b) === "") || sign * (key(a) - key(b)) || a - b;
      const found = (i) => browser.items[i].name.toLowerCase().includes(state.query);
      return [...browser.items.keys()].filter(found).sort(orders[state.sort] ?? byFact);
    }

    function fillList() {
      const order = shown(), column = state.sort in browser.numeric ? Number(state.sort) : first;
      const number = (item) => (column < 0 || item.keys[column] === "" ? NaN : Number(item.keys[column]));
      const keys = browser.items.map(number);
      const isShare = keys.every((key) => Number.isNaN(key) || (key >= 0 && key <= 1));
      for (const i of order) {
        options[i].lastChild.textContent = column < 0 ? "" : browser.items[i].facts[column];
        options[i].style.setProperty("--share", isShare && !Number.isNaN(keys[i]) ? `${100 * keys[i]}%` : "0");
      }
      list.replaceChildren(...order.map((i) => options[i]));
      turn.textContent = state.down ? "↓" : "↑";
      turn.ariaLabel = state.down ? "descending, change to ascending" : "ascending, change to descending";
      const some = order.length === n ? n : `${order.length} of ${n}`, noun = n === 1 ? browser.noun : browser.plural;
      const of = column < 0 ? "" : `; the number is ${browser.columns[column]}`;
      count.textContent = order.length ? `${some} ${noun}${of}` : `No ${browser.noun} is named so.`;
      mark();
    }

    function mark() {
      const order = shown(), at = order.indexOf(state.chosen);
      options.forEach((option, i) => option.setAttribute("aria-selected", String(i === state.chosen)));
      list.setAttribute("aria-activedescendant", at < 0 ? "" : options[state.chosen].id);
      before.disabled = at <= 0;
      after.disabled = at === order.length - 1;
      if (at >= 0 && list.clientHeight) {
        const { offsetTop, offsetHeight } = options[state.chosen], top = offsetTop - list.offsetTop;
        const isSeen = top >= list.scrollTop && top + offsetHeight <= list.scrollTop + list.clientHeight;
        if (!isSeen) list.scrollTop = top - list.clientHeight / 2;
      }
    }

    // Where everything is shown, an item is drawn when it comes near, or when the page is printed.
    const near = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) if (isIntersecting) waiting.get(target)?.();
    }, { rootMargin: "800px" });
    const waiting = new Map();
    window.addEventListener("beforeprint", () => waiting.forEach((draw) => draw()));

    function show() {
      near.disconnect();
      waiting.clear();
      const articles = (state.all ? shown() : [state.chosen]).map((i) => {
        const article = make("article", { className: "item", style: { "min-height": "20rem" } });
        article.dataset.item = i;
        waiting.set(article, () => { waiting.delete(article); near.unobserve(article); fill(article, place, i); });
        return article;
      });
      chosen.replaceChildren(...articles);
      if (state.all) articles.forEach((article) => near.observe(article));
      else waiting.forEach((draw) => draw());
    }

    function choose(i) {
      state.chosen = i;
      mark();
      if (state.all) { chosen.querySelector(`[data-item="${i}"]`)?.scrollIntoView(); return; }
      show();
      if (controls.parentElement.getBoundingClientRect().top < 0) controls.parentElement.scrollIntoView();
    }

    function step(by) {
      const order = shown(), at = order.indexOf(state.chosen);
      if (order.length) choose(order[Math.min(order.length - 1, Math.max(0, at < 0 ? 0 : at + by))]);
    }

    function onKey(event) {
      const page = Math.max(1, Math.floor(list.clientHeight / (options[0].offsetHeight || 24)) - 1);
      const steps = { ArrowUp: -1, ArrowDown: 1, PageUp: -page, PageDown: page, Home: -n, End: n };
      if (!(event.key in steps) || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      step(steps[event.key]);
    }

    function onSearchKey(event) {
      if (event.key === "ArrowDown" || event.key === "Enter") {
        event.preventDefault();
        const order = shown();
        if (order.length && !order.includes(state.chosen)) choose(order[0]);
        list.focus();
      } else if (event.key === "Escape") {
        search.value = "";
        look();
      }
    }

    function arrange(change) {
      Object.assign(state, change);
      fillList();
      if (state.all) show();
    }

    const look = () => arrange({ query: search.value.trim().toLowerCase() });

    sort.append(make("option", { value: "given" }, "order of the report"), make("option", { value: "name" }, "name"));
    browser.columns.forEach((name, i) => {
      if (browser.numeric[i]) sort.append(make("option", { value: String(i) }, name));
    });
    sort.addEventListener("change", () => arrange({ sort: sort.value, down: false }));
    turn.addEventListener("click", () => arrange({ down: !state.down }));
    search.addEventListener("input", look);
    search.addEventListener("keydown", onSearchKey);
    list.addEventListener("keydown", onKey);
    before.addEventListener("click", () => step(-1));
    after.addEventListener("click", () => step(1));
    all.addEventListener("change", () => { state.all = all.checked; show(); });
    marks.addEventListener("change", () => root.classList.toggle("no-boxes", !marks.checked));
    strength.addEventListener("input", () => root.style.setProperty("--strength", strength.value / 100));

    const sorting = make("div", { className: "sort" }, make("label", {}, "Sort ", sort), turn);
    const chooser = make("div", { className: "chooser" }, search, sorting, count, list);
    search.hidden = n < SEARCH_FROM;
    const controls = make("div", { className: "controls" }, before, after);
    if (browser.hasLayers) controls.append(make("label", {}, "Maps", strength));
    if (browser.hasMarks) controls.append(make("label", {}, marks, "boxes"));
    controls.append(make("label", {}, all, `all ${browser.plural}`));
    const root = make("div", { className: "browser" }, chooser, make("div", {}, controls, chosen));
    document.getElementById(`section-${place + 1}`).append(root);
    fillList();
    show();
  }

  data.browsers.forEach(build);
})();
