/* The parts of the page that are plain HTML, each drawn from the data of one server-side panel. */
(function () {
  "use strict"
  const page = window.revacnn
  const {byId, make} = page

  /* A fact is {label, value, tone?, title?, warn?}. */
  function facts(element, list, tag) {
    const same = element.childElementCount == list.length &&
      list.every((fact, i) => element.children[i].firstChild.textContent == fact.label)
    if (!same) {
      element.replaceChildren(...list.map((fact) =>
        make("span", {class: tag, "data-tone": fact.tone, title: fact.title},
             tag == "field" ? make("span", {}, fact.label) : make("span", {}, `${fact.label}`), " ", make("b"))))
    }
    list.forEach((fact, i) => {
      const value = element.children[i].lastChild
      if (value.textContent != fact.value) value.textContent = fact.value
      value.dataset.warn = Boolean(fact.warn)
    })
  }

  page.drawers.header = (data) => {
    byId("app").dataset.run = data.run
    byId("app").dataset.ended = data.ended
    page.still = data.still
    byId("dot").dataset.kind = data.kind
    byId("model").textContent = data.model
    byId("model").hidden = data.runs.length > 1
    byId("run-state").textContent = data.state
    byId("run-state").title = data.state
    byId("run-state").dataset.kind = data.kind
    facts(byId("fields"), data.fields, "field")
    runs(data.runs)
    byId("empty").hidden = data.run != "none"
    byId("problem").textContent = data.problem
    if (data.current) remember(data.current)
    ended(data)
    const connecting = byId("connecting")
    connecting.hidden = data.run != "connecting"
    connecting.textContent = data.run == "connecting" ? data.state : ""
  }

  /** The address names the run, so that reloading the page stays with it. */
  function remember(run) {
    const address = new URL(location.href)
    if (address.searchParams.get("run") == run) return
    address.searchParams.set("run", run)
    history.replaceState(history.state, "", address)
  }

  function ended(data) {
    const bar = byId("ended"), {next} = data
    bar.hidden = !data.ended
    bar.dataset.kind = data.kind
    bar.querySelector(".what").textContent = data.ended ? data.ended_text : ""
    const button = bar.querySelector(".next")
    button.hidden = next == null
    if (next != null) {
      button.textContent = `Show ${next.label}`
      button.onclick = () => page.send("follow", {run: next.id})
    }
  }

  function runs(list) {
    const select = byId("runs")
    select.hidden = list.length < 2
    const key = JSON.stringify(list)
    if (select.dataset.key == key) return
    select.dataset.key = key
    select.replaceChildren(...list.map((run) => make("option", {value: run.id, selected: run.current}, run.label)))
  }

  /* --------------------------------------------------------------------- staging and replies */

  /* A button that is drawn anew between being pressed and let go of would lose the click: the bar waits so long. */
  let pressed = false
  addEventListener("DOMContentLoaded", () => {
    byId("staging").addEventListener("pointerdown", () => pressed = true)
    for (const over of ["pointerup", "pointercancel"]) {
      addEventListener(over, () => pressed && setTimeout(() => { // after the click
        pressed = false
        page.drawers.staging(page.parts.staging)
      }))
    }
  })

  page.drawers.staging = (data) => {
    if (pressed) return
    const bar = byId("staging")
    bar.hidden = data.rows.length == 0
    if (bar.hidden) {
      bar.replaceChildren()
      return
    }
    const single = data.rows.length == 1
    const rows = data.rows.map((row) => staged(row, data, single))
    if (!single) rows.push(make("div", {class: "row foot"}, make("span", {class: "what"}, data.summary), ...buttons(data)))
    bar.replaceChildren(...rows)
  }

  function staged(row, data, single) {
    const detail = row.refused ? `Not possible: ${row.refused}` : row.detail
    const text = make("span", {class: "what"}, `${row.verb} `, make("b", {class: "title"}, row.title),
      single ? ` ${data.when}` : "", detail ? make("small", {class: "detail"}, detail) : null,
      row.why ? make("small", {class: "why"}, row.why) : null)
    const drop = single ? [] : [make("button", {class: "drop", "aria-label": `Unstage ${row.title}`,
      onclick: () => page.send("unstage", {row: row.key})}, "×")]
    return make("div", {class: row.refused ? "row refused" : "row", "data-plan": row.plan},
                text, ...(single ? buttons(data) : drop))
  }

  function buttons(data) {
    return [
      make("button", {class: "apply", disabled: !data.can_apply, title: data.hint,
                      onclick: () => page.send("apply", {})}, data.busy ? "Applying…" : "Apply"),
      make("button", {class: "undo", title: "Escape", onclick: () => page.send("unstage", {})}, "Undo"),
    ]
  }

  page.drawers.reply = (data) => {
    const box = byId("reply")
    box.hidden = !data.title
    box.dataset.state = data.state ?? ""
    if (!data.title) return
    box.replaceChildren(make("span", {}, make("b", {}, data.title), " ", make("span", {class: "outcome"}, data.outcome)),
      make("small", {class: "text"}, data.text ?? ""),
      make("button", {"aria-label": "Dismiss", onclick: () => page.send("dismiss", {})}, "×"))
  }

  page.drawers.changes = (data) => {
    const undo = byId("undo")
    undo.setAttribute("aria-disabled", String(!data.can_undo))
    undo.title = data.can_undo ? "Ask the training to take back its last change" : data.why_not
    const list = data.records.map((record) => make("li", {"data-state": record.state, title: record.about || null},
      make("span", {}, make("span", {class: "title"}, record.title), make("small", {}, record.text))))
    byId("records").replaceChildren(...(list.length ? list
      : [make("li", {class: "none"}, "Nothing changed yet. Select a filter and press Delete, or use − and + above a layer.")]))
  }

  page.drawers.charts = (data) => {
    data.charts?.forEach((chart, i) => {
      const select = document.querySelector(`select[data-chart="${i}"]`), key = JSON.stringify(chart.options)
      if (select.dataset.key != key) {
        select.dataset.key = key
        select.replaceChildren(...chart.options.map(([value, label]) => make("option", {value}, label)))
      }
      if (select != document.activeElement || select.value == "") select.value = chart.current
    })
  }

  page.drawers.timeline = (data) => {
    byId("timeline").hidden = data.rows < 2
    if (data.rows < 2) return
    const slider = byId("time")
    byId("timeline").dataset.live = data.live
    slider.max = data.rows - 1
    // Not while it is being dragged: the hand knows better.
    if (!slider.matches(":active")) slider.value = data.at
    slider.style.setProperty("--part", `${100 * slider.value / slider.max}%`)
    slider.setAttribute("aria-valuetext", data.text)
    byId("moment").textContent = data.text
    slider.title = data.kept
    byId("play").dataset.playing = data.playing
    byId("play").title = data.playing ? "Halt" : "Play what was recorded since this viewer attached"
    byId("play").setAttribute("aria-label", byId("play").title)
  }

  /* ------------------------------------------------------------------------------- inspector */

  page.drawers.inspector = (data) => {
    byId("layer").textContent = data.layer
    byId("layer").title = `${data.layer} · ${data.facts}`
    byId("layer-facts").textContent = data.facts
    byId("layer-facts").title = data.about
    byId("filter").textContent = data.filter
    facts(byId("filter-facts"), data.values, "value")
    for (const [id, why] of Object.entries(data.refused)) {
      const button = byId(id)
      button.setAttribute("aria-disabled", String(Boolean(why)))
      button.title = why || data.words[id]
    }
    for (const button of document.querySelectorAll("[data-sort]")) {
      button.setAttribute("aria-pressed", String(button.dataset.sort == data.sort))
    }
  }

  addEventListener("DOMContentLoaded", () => {
    for (const select of document.querySelectorAll("select[data-chart]")) {
      select.addEventListener("change", () => {
        page.send("chart", {at: Number(select.dataset.chart), by: select.value})
        select.blur() // so that keys go to the network again
      })
    }
  })

  /* Before there is a run: two layers of dots and the paths between them. */
  addEventListener("DOMContentLoaded", () => {
    const svg = (tag, attributes) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", tag)
      for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
      return element
    }
    const art = byId("hero-art"), columns = [[20, 4], [110, 7], [200, 5]]
    columns.slice(0, -1).forEach(([x, n], c) => {
      const [x1, n1] = columns[c + 1]
      for (let i = 0; i < n; i++) {
        const y = 45 + (i - (n - 1) / 2) * 12, y1 = 45 + ((i + 0.5) / n - 0.5) * n1 * 12
        art.append(svg("path", {d: `M${x},${y} C${x + 45},${y} ${x1 - 45},${y1} ${x1},${y1}`, fill: "none",
          stroke: "var(--blue)", "stroke-width": 0.6 + (i * 7 % 4) * 0.7, opacity: 0.25 + (i * 5 % 4) * 0.13}))
      }
    })
    for (const [x, n] of columns) {
      for (let i = 0; i < n; i++) {
        art.append(svg("circle", {cx: x, cy: 45 + (i - (n - 1) / 2) * 12, r: 3.2,
          fill: i * 3 % 4 == 1 ? "var(--muted)" : "var(--orange)", opacity: 0.55 + (i * 5 % 4) * 0.15}))
      }
    }
  })
})()
