// Makes the page easier to look through: zoom, filters, and the way from a finding to its event. Everything is on the page without it.
"use strict";
(() => {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const side = 12;
  document.querySelectorAll(".tools").forEach(tools => { tools.hidden = false; });

  // Filters: a line stays when it holds every word.
  const filters = new Map();
  for (const input of document.querySelectorAll("[data-filter]")) {
    const body = document.getElementById(input.dataset.filter);
    const count = document.querySelector(`[data-count="${input.dataset.filter}"]`);
    const apply = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of body.rows) {
        const text = words.length ? row.textContent.toLowerCase() : "";
        row.hidden = !words.every(word => text.includes(word));
        shown += !row.hidden;
      }
      count.textContent = words.length ? `${shown} of ${body.rows.length} lines` : "";
    };
    input.addEventListener("input", apply);
    filters.set(body, () => { input.value = ""; apply(); });
  }

  // Drawings over time. What has a data-t is placed by it, what has a data-u too is as long as that.
  const drawings = new Map();
  class Drawing {
    constructor(svg) {
      this.svg = svg;
      this.height = svg.viewBox.baseVal.height;
      this.all = [Number(svg.dataset.from ?? facts.from), Number(svg.dataset.until ?? facts.until)];
      this.view = [...this.all];
      const number = (element, name) => Number(element.dataset[name]);
      this.spans = [...svg.querySelectorAll("[data-u]")].map(at => [at, number(at, "t"), number(at, "u")]);
      this.marks = [...svg.querySelectorAll(".m")].map(at => [at, number(at, "t"), number(at, "y")]).sort((a, b) => a[1] - b[1]);
      this.axis = svg.querySelector(".axis");
      this.said = document.getElementById(`said-${svg.id}`);
      this.on = -1;
      svg.classList.add("js");
      svg.tabIndex = 0;
      svg.parentElement.removeAttribute("tabindex");
      svg.setAttribute("role", "application");
      const tools = document.querySelector(`[data-for="${svg.id}"]`);
      tools.addEventListener("click", event => this.act(event.target.closest("button")?.dataset.do));
      svg.addEventListener("keydown", event => this.key(event));
      svg.addEventListener("wheel", event => this.wheel(event), { passive: false });
      svg.addEventListener("pointerover", event => this.hover(event.target));
      svg.addEventListener("click", event => this.click(event));
      new ResizeObserver(() => this.draw()).observe(svg.parentElement);
    }
    x(at) { return side + (at - this.view[0]) / (this.view[1] - this.view[0]) * (this.width - 2 * side); }
    draw() {
      const width = this.svg.parentElement.clientWidth;
      if (!width) return;
      this.width = width;
      this.svg.setAttribute("viewBox", `0 0 ${width} ${this.height}`);
      this.svg.setAttribute("width", width);
      for (const [element, from, until] of this.spans) {
        const a = Math.max(-2, this.x(from)), b = Math.min(width + 2, this.x(until));
        element.style.display = b < a || b < 0 || a > width ? "none" : "";
        element.setAttribute("x", a.toFixed(1));
        element.setAttribute("width", Math.max(0.5, b - a).toFixed(1));
      }
      for (const [element, at, y] of this.marks) {
        const x = this.x(at);
        element.style.display = x < 0 || x > width ? "none" : "";
        element.setAttribute("transform", `translate(${x.toFixed(1)} ${y})`);
      }
      const span = this.view[1] - this.view[0];
      const step = [1, 2, 5, 10].map(n => n * 10 ** Math.floor(Math.log10(span / (width / 90)))).find(n => n >= span / (width / 90)) || span;
      const digits = Math.max(0, Math.min(6, -Math.floor(Math.log10(step) + 1e-9)));
      const name = "http://www.w3.org/2000/svg";
      const ticks = [];
      for (let at = Math.ceil(this.view[0] / step) * step; at <= this.view[1] && ticks.length < 200; at += step) {
        const x = this.x(at).toFixed(1);
        const line = document.createElementNS(name, "path"), text = document.createElementNS(name, "text");
        line.setAttribute("d", `M${x} 18V${this.height}`);
        text.setAttribute("x", x);
        text.setAttribute("y", 12);
        text.setAttribute("text-anchor", x < 30 ? "start" : x > width - 30 ? "end" : "middle");
        text.textContent = `${at.toFixed(digits)} s`;
        ticks.push(line, text);
      }
      this.axis.replaceChildren(...ticks);
    }
    show(from, until) {
      const least = Math.min(1e-6, this.all[1] - this.all[0]);
      const span = Math.min(Math.max(until - from, least), this.all[1] - this.all[0]);
      const start = Math.min(Math.max(from, this.all[0]), this.all[1] - span);
      this.view = [start, start + span];
      this.draw();
    }
    zoom(by, around) {
      const [from, until] = this.view;
      const at = around ?? (this.on >= 0 && this.inView(this.on) ? this.marks[this.on][1] : (from + until) / 2);
      this.show(at - (at - from) * by, at + (until - at) * by);
    }
    move(by) {
      const span = this.view[1] - this.view[0];
      this.show(this.view[0] + span * by, this.view[1] + span * by);
    }
    act(what) {
      const acts = { in: () => this.zoom(0.5), out: () => this.zoom(2), left: () => this.move(-0.5), right: () => this.move(0.5), all: () => this.show(...this.all) };
      acts[what]?.();
    }
    inView(index) { const at = this.marks[index][1]; return at >= this.view[0] && at <= this.view[1]; }
    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const pick = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (event.key === "+" || event.key === "=") this.act("in");
      else if (event.key === "-") this.act("out");
      else if (event.key === "0") this.act("all");
      else if (event.shiftKey && event.key === "ArrowLeft") this.act("left");
      else if (event.shiftKey && event.key === "ArrowRight") this.act("right");
      else if (pick && this.marks.length) this.step(...pick);
      else if (pick) this.move(pick[0] * 0.2);
      else if (event.key === "Home") this.select(0);
      else if (event.key === "End") this.select(this.marks.length - 1);
      else if (event.key === "Enter" && this.on >= 0) go(this.marks[this.on][0].dataset.e);
      else return;
      event.preventDefault();
    }
    // To the next mark of the lane in time, or to the nearest one of the next lane.
    step(dx, dy) {
      const lane = mark => mark[0].parentElement;
      if (this.on < 0) return this.select(0);
      const now = this.marks[this.on];
      const lanes = [...this.svg.querySelectorAll(".lane")].filter(one => one.querySelector(".m"));
      const to = lanes[lanes.indexOf(lane(now)) + dy];
      let best = -1;
      this.marks.forEach((mark, index) => {
        if (index === this.on || lane(mark) !== to) return;
        const ahead = dy ? true : (mark[1] - now[1] || index - this.on) * dx > 0;
        const far = Math.abs(mark[1] - now[1]), least = best < 0 ? Infinity : Math.abs(this.marks[best][1] - now[1]);
        if (ahead && (far < least || (far === least && dx < 0))) best = index;
      });
      if (best >= 0) this.select(best);
    }
    select(index) {
      if (!this.marks[index]) return;
      this.marks[this.on]?.[0].classList.remove("on");
      this.on = index;
      const [element, at] = this.marks[index];
      element.classList.add("on");
      if (!this.inView(index)) {
        const half = (this.view[1] - this.view[0]) / 2;
        this.show(at - half, at + half);
      }
      this.say(element);
    }
    say(element) { this.said.textContent = told(element); }
    wheel(event) {
      // Whoever only passes by scrolls the page; in a drawing that was clicked, or with Ctrl, the wheel zooms.
      if (event.ctrlKey || event.metaKey || (document.activeElement === this.svg && !event.shiftKey)) {
        const box = this.svg.getBoundingClientRect();
        const share = Math.min(1, Math.max(0, (event.clientX - box.left - side) / (this.width - 2 * side)));
        this.zoom(event.deltaY > 0 ? 1.25 : 0.8, this.view[0] + share * (this.view[1] - this.view[0]));
      } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
        this.move(Math.sign(event.deltaX || event.deltaY) * 0.1);
      } else return;
      event.preventDefault();
    }
    hover(target) {
      const element = target.closest(".m, .s");
      if (element) this.say(element);
    }
    click(event) {
      const mark = event.target.closest(".m"), block = event.target.closest(".block");
      if (!mark) this.svg.focus({ preventScroll: true });
      if (mark) this.select(this.marks.findIndex(one => one[0] === mark));
      else if (block) {
        const same = this.view[0] === Number(block.dataset.t);
        if (same) this.act("all"); else this.show(Number(block.dataset.t), Number(block.dataset.u));
        this.say(block);
      }
    }
  }
  // What stands for an element of a drawing: its event's line, or its own title.
  function told(element) {
    const title = element.dataset.title ?? element.querySelector("title")?.textContent;
    const row = element.dataset.e && document.getElementById(`e${element.dataset.e}`);
    const line = row ? [...row.cells].map(cell => cell.textContent.trim()) : [];
    const event = row ? `event ${line[0]}, ${line[1]} s, process ${line[2]}: ${line[3]} ${line[4]}` : "";
    return [title, event].filter(Boolean).join(" – ");
  }
  for (const svg of document.querySelectorAll("svg.zoom")) {
    const drawing = new Drawing(svg);
    drawings.set(svg.id, drawing);
    drawing.draw();
  }

  // To an event: whatever hides it is opened, and it is marked in table and timeline.
  let marked;
  function go(id) {
    if (location.hash === `#e${id}`) reveal(); else location.hash = `e${id}`;
  }
  function reveal() {
    const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    if (!target) return;
    for (let above = target.parentElement; above; above = above.parentElement) {
      if (above.tagName === "DETAILS") above.open = true;
    }
    if (!target.matches("#event-rows > tr")) return;
    if (target.hidden) filters.get(target.parentElement)?.();
    marked?.classList.remove("on");
    marked = target;
    target.classList.add("on");
    target.focus({ preventScroll: true });
    target.scrollIntoView({ block: "center" });
    const lanes = drawings.get("lanes");
    const index = lanes ? lanes.marks.findIndex(mark => `e${mark[0].dataset.e}` === target.id) : -1;
    if (index >= 0) lanes.select(index);
  }
  addEventListener("hashchange", reveal);
  document.addEventListener("click", event => {
    const link = event.target.closest("a[href^='#e']");
    const to = link?.getAttribute("href");
    // The same event again makes no change of the address.
    if (to && to === location.hash) reveal();
  });
  reveal();

  // On paper everything is open, and as wide as the paper.
  const closed = new Set();
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details:not([open])")) { closed.add(details); details.open = true; }
    for (const drawing of drawings.values()) drawing.show(...drawing.all);
  });
  addEventListener("afterprint", () => { closed.forEach(details => { details.open = false; }); closed.clear(); });
})();
