"use strict";
const drawn = JSON.parse(document.getElementById("charts").textContent);
for (const [name, spec] of Object.entries(drawn)) {
  const place = document.getElementById("chart-" + name);
  if (place) vegaEmbed(place, spec, { actions: false, renderer: "svg" }).catch((error) => {
    place.textContent = "This drawing failed: " + error.message;
  });
}
for (const list of document.querySelectorAll("[role=tablist]")) {
  const tabs = [...list.querySelectorAll("[role=tab]")];
  const select = (chosen) => {
    for (const tab of tabs) {
      const on = tab === chosen;
      tab.setAttribute("aria-selected", on);
      tab.tabIndex = on ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = !on;
    }
    chosen.focus();
  };
  list.addEventListener("click", (event) => {
    const tab = event.target.closest("[role=tab]");
    if (tab) select(tab);
  });
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    select(tabs[(tabs.indexOf(event.target) + step + tabs.length) % tabs.length]);
  });
}
