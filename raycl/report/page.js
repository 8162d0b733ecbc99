// Theme, sorting, copying, saving, pointing. Without it the page still shows everything.
(() => {
  "use strict";
  const root = document.documentElement;
  const remembered = {
    get() { try { return localStorage.getItem("raycl-theme"); } catch { return null; } },
    set(value) { try { localStorage.setItem("raycl-theme", value); } catch { /* file:// */ } },
  };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const theme = () => root.dataset.theme || (dark.matches ? "dark" : "light");
  if (["light", "dark"].includes(remembered.get())) root.dataset.theme = remembered.get();

  document.addEventListener("DOMContentLoaded", () => {
    const toggle = document.querySelector(".theme");
    const tell = () => toggle.setAttribute("aria-pressed", String(theme() === "dark"));
    toggle.addEventListener("click", () => {
      root.dataset.theme = theme() === "dark" ? "light" : "dark";
      remembered.set(root.dataset.theme);
      tell();
    });
    dark.addEventListener("change", tell);
    tell();
    document.querySelectorAll("table.sortable").forEach(sortable);
    document.querySelectorAll("[data-copy]").forEach(copier);
    document.querySelectorAll("figure > .quiet").forEach(saver);
    point();
  });

  function sortable(table) {
    const body = table.tBodies[0];
    table.querySelectorAll("thead th").forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const was = head.getAttribute("aria-sort");
        const first = head.dataset.first || "descending";
        const other = first === "descending" ? "ascending" : "descending";
        const order = was === first ? other : first;
        table.querySelectorAll("th[aria-sort]").forEach((th) => th.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const value = (row) => row.cells[column].dataset.v ?? "";
        const rows = [...body.rows].sort((a, b) => {
          const [x, y] = [value(a), value(b)];
          if (x === "" || y === "") return (x === "") - (y === ""); // undefined comes last
          return sign * (head.dataset.text !== undefined ? x.localeCompare(y, "en", { numeric: true }) : x - y);
        });
        body.append(...rows);
      });
    });
  }

  function copier(button) {
    button.addEventListener("click", async () => {
      const table = document.getElementById(button.dataset.copy);
      const text = [...table.rows].map((row) => [...row.cells].map((cell) =>
        cell.innerText.replace(/\s+/g, " ").trim()).join("\t")).join("\n");
      let done = false;
      try { await navigator.clipboard.writeText(text); done = true; } catch {
        const area = document.createElement("textarea");
        area.value = text;
        document.body.append(area);
        area.select();
        done = document.execCommand("copy");
        area.remove();
      }
      const words = button.textContent;
      button.textContent = done ? "Copied" : "Not allowed here";
      setTimeout(() => { button.textContent = words; }, 1500);
    });
  }

  function saver(button) {
    button.addEventListener("click", () => {
      const panels = button.parentElement.querySelector(".panels");
      const shown = panels ? [together(panels)] : [...button.parentElement.querySelectorAll("svg.chart")].filter((svg) => svg.getClientRects().length);
      shown.forEach((svg, i) => {
        const copy = svg.cloneNode(true);
        const style = document.createElementNS("http://www.w3.org/2000/svg", "style");
        style.textContent = variables() + document.getElementById("figure-css").textContent;
        const ground = document.createElementNS("http://www.w3.org/2000/svg", "rect");
        for (const [name, value] of Object.entries({ width: "100%", height: "100%", fill: colour("--card") })) ground.setAttribute(name, value);
        copy.prepend(style, document.getElementById("hatch").parentElement.cloneNode(true), ground);
        copy.querySelectorAll("[data-tip]").forEach((mark) => {
          const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
          title.textContent = mark.dataset.tip;
          mark.prepend(title);
          delete mark.dataset.tip;
        });
        const file = new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" });
        const link = document.createElement("a");
        link.href = URL.createObjectURL(file);
        link.download = button.dataset.save + (shown.length > 1 ? `-${i + 1}` : "") + ".svg";
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      });
    });
  }

  // Panels are one picture, as they stand on the page.
  function together(panels) {
    const box = panels.getBoundingClientRect();
    const whole = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const place = (svg, values) => Object.entries(values).forEach(([name, value]) => svg.setAttribute(name, value));
    const [margin, width, height] = [14, box.width + 28, box.height + 28];
    place(whole, { class: "chart", viewBox: `0 0 ${width} ${height}`, width, height });
    panels.querySelectorAll("svg.chart").forEach((svg) => {
      const at = svg.getBoundingClientRect();
      const copy = svg.cloneNode(true);
      place(copy, { x: at.left - box.left + margin, y: at.top - box.top + margin, width: at.width, height: at.height });
      whole.append(copy);
    });
    return whole;
  }

  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  function variables() {
    const names = document.getElementById("theme-css").textContent.match(/--[\w-]+(?=:)/g) || [];
    return "svg{" + [...new Set(names)].map((name) => `${name}:${colour(name)};`).join("") + "}";
  }

  // One quick tip instead of the browser's slow one; and a setting pointed at stands out.
  function point() {
    const tip = document.createElement("div");
    tip.className = "tip";
    document.body.append(tip);
    const data = JSON.parse(document.getElementById("matrices").textContent);
    const say = (words, event) => {
      tip.textContent = words || "";
      tip.classList.toggle("on", Boolean(words));
      if (!words) return;
      const box = tip.getBoundingClientRect();
      tip.style.left = `${Math.max(6, Math.min(event.clientX + 12, innerWidth - box.width - 6))}px`;
      tip.style.top = `${event.clientY + 18 + box.height > innerHeight ? event.clientY - box.height - 10 : event.clientY + 16}px`;
    };
    document.addEventListener("pointermove", (event) => {
      const target = event.target instanceof Element ? event.target : root;
      const svg = target.closest("svg.chart");
      document.querySelectorAll(".chart.focus").forEach((other) => {
        if (other !== svg) other.classList.remove("focus");
      });
      if (!svg) return say("", event);
      const series = target.closest(".series");
      svg.classList.toggle("focus", Boolean(series) && svg.querySelectorAll(".series").length > 1);
      if (series) {
        const mine = series.getAttribute("class").split(" ").find((name) => name.startsWith("p"));
        svg.querySelectorAll(".series").forEach((other) => other.classList.toggle("on", other === series || (mine && other.classList.contains(mine))));
      }
      if (svg.dataset.matrix) return say(cell(svg, event, data), event);
      const title = target.querySelector(":scope > title");
      if (title) {
        target.dataset.tip = title.textContent;
        title.remove();
      }
      const tipped = target.closest("[data-tip]");
      say(tipped && svg.contains(tipped) ? tipped.dataset.tip : "", event);
    });
  }

  function cell(svg, event, data) {
    const shown = data[svg.dataset.matrix];
    const [left, size, gap, top] = svg.dataset.grid.split(" ").map(Number);
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const column = Math.floor((at.x - left) / size);
    const row = at.y < top + size ? Math.floor((at.y - top) / size) : Math.floor((at.y - top - gap) / size);
    const value = shown.values[row]?.[column];
    if (value === undefined) return "";
    const where = `${shown.row} ${shown.rows[row]}, ${shown.column} ${shown.columns[column]}`;
    return value === null ? `${where}: undefined${shown.why ? ` (${shown.why})` : ""}` : `${where}: ${value.toFixed(1)} %`;
  }
})();
