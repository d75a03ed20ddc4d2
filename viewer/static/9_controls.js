/* Pause, step, save, stop, and the learning rates: the buttons in the page's head. */
(function () {
  "use strict"
  const page = window.revacnn
  const {byId, make} = page
  const SURE_MS = 3000 // so long a first press of Stop waits for the second

  const ICONS = {
    pause: "M4 3h3v10H4zM9 3h3v10H9z", resume: "M4 2.5 13 8 4 13.5z", step: "M3 3v10l7-5zM11 3h2v10h-2z",
    checkpoint: "M8 2v7M4.5 6.5 8 10l3.5-3.5M3 13h10", stop: "M4 4h8v8H4z",
    rates: "M3 5h6M12 5h1M3 11h1M7 11h6M10.5 3.5v3M5.5 9.5v3",
  }
  const WORDS = {
    pause: "Pause before the next batch (Space)", resume: "Resume (Space)", step: "Train one batch (.)",
    checkpoint: "Save a checkpoint now", stop: "Save a checkpoint and end the training", rates: "Learning rates and weight decay",
  }

  function dress(button, name) {
    if (button.dataset.icon == name) return
    button.dataset.icon = name
    button.title = WORDS[name]
    button.setAttribute("aria-label", WORDS[name])
    button.innerHTML = `<svg viewBox="0 0 16 16" aria-hidden="true"><path d="${ICONS[name]}"/></svg>`
  }

  const command = (by) => page.send("control", {by})

  page.drawers.controls = (data) => {
    byId("controls").hidden = !data.available
    if (!data.available) byId("rates-panel").hidden = true
    dress(byId("pause"), data.paused ? "resume" : "pause")
    byId("step").disabled = !data.paused
    byId("pause").dataset.paused = data.paused
    rates(data.groups)
  }

  /** A table of what is in force; what was typed and not yet confirmed stays. */
  function rates(groups) {
    const panel = byId("rates-panel"), shape = JSON.stringify(groups.map((g) => [g.title, g.values.length]))
    if (panel.dataset.shape != shape) {
      panel.dataset.shape = shape
      const sections = groups.map((group) => make("section", {}, make("h3", {}, group.title),
        ...group.values.map((value) => field(group, value))))
      panel.replaceChildren(...sections.length > 0 ? sections : ["The training has not told of its optimizers yet"])
    }
    groups.forEach((group, i) => group.values.forEach((value, j) => {
      const row = panel.children[i].children[j + 1], asked = row.dataset.asked
      row.querySelector("output").textContent = value.text
      if (asked != null && Math.abs(Number(asked) - value.value) <= 1e-6 * Math.abs(value.value)) delete row.dataset.asked
      row.querySelector("output").dataset.asked = row.dataset.asked ?? ""
    }))
  }

  function field(group, value) {
    const input = make("input", {type: "text", inputmode: "decimal", "aria-label": `New ${value.label}`, placeholder: "new value"})
    const row = make("form", {class: "rate", "data-name": value.name}, make("span", {}, value.label), make("output", {}, value.text), input,
      make("button", {}, "Set"))
    row.addEventListener("submit", (event) => {
      event.preventDefault()
      const wanted = Number(input.value.replace(",", "."))
      const fine = input.value.trim() != "" && Number.isFinite(wanted) && wanted >= 0
      input.setAttribute("aria-invalid", !fine)
      if (!fine) return
      row.dataset.asked = row.querySelector("output").dataset.asked = wanted
      page.send("rate", {optimizer: group.optimizer, group: group.group, by: value.name, value: wanted})
      input.value = ""
    })
    return row
  }

  function stop() {
    const button = byId("stop")
    if (button.dataset.sure == "true") {
      button.dataset.sure = "false"
      command("stop")
      return
    }
    button.dataset.sure = "true"
    page.say("Press again to save a checkpoint and end the training")
    setTimeout(() => { button.dataset.sure = "false" }, SURE_MS)
  }

  addEventListener("DOMContentLoaded", () => {
    for (const name of ["pause", "step", "checkpoint", "stop", "rates"]) dress(byId(name), name)
    const toggle = () => command(page.parts.controls?.paused ? "resume" : "pause")
    byId("pause").addEventListener("click", toggle)
    byId("step").addEventListener("click", () => command("step"))
    byId("checkpoint").addEventListener("click", () => command("checkpoint"))
    byId("stop").addEventListener("click", stop)
    byId("rates").addEventListener("click", () => {
      byId("rates-panel").hidden = !byId("rates-panel").hidden
      byId("rates").setAttribute("aria-expanded", !byId("rates-panel").hidden)
    })
  })
})()
