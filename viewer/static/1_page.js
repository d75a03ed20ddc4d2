/* The page's own code: settings, the link to the server, handles for tests. Loaded before Bokeh.
 *
 * window.revacnn holds what is worth knowing from outside:
 *   ready        true once the network, its headers and its first numbers have been painted
 *   frames       animation frames so far          sent   updates received so far
 *   age          seconds from publishing to painting of the newest numbers, by the two clocks
 *   times        [published, read, sent, received, painted] of the newest snapshots, Unix time in ms
 *   parts        the newest data of each HTML part: header, columns, selection, staging, ...
 *   nodes(name)  where the nodes of a layer are on the screen: [{index, last, x, y}, ...]
 */
(function () {
  "use strict"
  const page = window.revacnn = {parts: {}, drawers: {}, ready: false, sent: 0, hovered: -1, chosen: -1}
  const still = matchMedia("(prefers-reduced-motion: reduce)")

  page.byId = (id) => document.getElementById(id)
  page.send = (command, args) => page.link?.command(command, args)

  /** An element with children; text is always set as text, never as HTML. */
  page.make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag)
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value)
      else if (value === true) element.setAttribute(name, "")
      else if (value !== false && value != null) element.setAttribute(name, value)
    }
    element.append(...children.filter((child) => child != null && child !== ""))
    return element
  }

  /** Called with what is new of a part; an atlas comes along when that is new, too. */
  page.models = {}
  page.draw = (part, data, atlas) => {
    page.parts[part] = data
    const model = page.models[part] ??= {}
    model.atlas = atlas ?? model.atlas
    if (page.byId("app") != null) page.drawers[part]?.(data, model)
  }

  page.say = (text) => {
    page.byId("said").textContent = text
  }

  /* Motion: remembered by the browser; none where the system asks for none. */
  page.motion = still.matches ? 0 : Number(localStorage.getItem("revacnn-motion") ?? 1)
  const set_motion = page.set_motion = (value) => {
    page.motion = value = Math.min(2, Math.max(0, value))
    page.byId("motion").value = value
    page.byId("motion").style.setProperty("--part", `${value * 50}%`)
    if (page.network != null) page.network.dirty = true
  }
  still.addEventListener("change", () => set_motion(still.matches ? 0 : 1))

  /* Theme: a cookie, so that the server draws its charts in it from the start. */
  function set_theme(name) {
    document.documentElement.dataset.theme = name
    document.cookie = `revacnn-theme=${name}; path=/; max-age=31536000; samesite=lax`
    if (page.link != null) page.link.theme = name
    page.repaint?.()
  }

  /* What the page does in a second, measured here. */
  let frames = 0, sent = 0
  setInterval(() => {
    const rate = page.byId("rate")
    if (rate == null || document.hidden) return
    rate.textContent = page.ready ? `${page.sent - sent} Hz · ${page.frames - frames} fps` : ""
    frames = page.frames
    sent = page.sent
  }, 1000)
  page.on_sent = () => {
    page.sent += 1
    page.hold_plots()
    page.ready = page.parts.columns?.layers?.length > 0 && page.network != null
  }

  /* How old the numbers were when they were painted, and where the time went. */
  const TIMES = 600
  page.times = []
  page.lag = 0 // ms from arrival to painting, smoothed: what a slow page leaves out depends on it
  page.on_painted = (stamps, received, painted) => {
    const [published, ...others] = stamps.map((stamp) => 1000 * stamp)
    if (published == null || published === page.times.at(-1)?.[0]) return // something else was new
    page.age = (painted - published) / 1000
    page.lag += 0.3 * (painted - received - page.lag)
    page.times.push([published, ...others, received, painted])
    if (page.times.length > TIMES) page.times.shift()
  }

  addEventListener("DOMContentLoaded", () => {
    for (const [part, data] of Object.entries(page.parts)) page.drawers[part]?.(data, page.models[part])
    set_motion(page.motion)
    page.byId("motion").addEventListener("input", (event) => {
      set_motion(Number(event.target.value))
      localStorage.setItem("revacnn-motion", page.motion)
    })
    page.byId("theme").addEventListener("click", () => {
      set_theme(document.documentElement.dataset.theme == "light" ? "dark" : "light")
    })
    const actions = {add: "stage_add", split: "stage_split", remove: "stage_remove", undo: "undo"}
    for (const [id, command] of Object.entries(actions)) {
      page.byId(id).addEventListener("click", (event) => {
        if (event.currentTarget.getAttribute("aria-disabled") != "true") page.send(command, {})
      })
    }
    for (const button of document.querySelectorAll("[data-sort]")) {
      button.addEventListener("click", () => page.send("sort", {by: button.dataset.sort}))
    }
    for (const id of ["play", "live"]) page.byId(id).addEventListener("click", () => page.send(id, {}))
    page.byId("time").addEventListener("input", (event) => {
      const {recorded, rows} = page.parts.timeline, at = Number(event.target.value)
      page.send("time", {at: Math.round(at / (rows - 1) * (recorded - 1))})
    })
    page.byId("runs").addEventListener("change", (event) => page.send("follow", {run: event.target.value}))
  })
  document.addEventListener("visibilitychange", () => {
    if (page.link != null) page.link.visible = !document.hidden
  })

  /** Called once the network's view exists: from now on the link reaches the server. */
  page.attach = () => {
    const {link} = page
    link.theme = document.documentElement.dataset.theme
    link.visible = !document.hidden
    for (const [part, data] of Object.entries(page.parts)) {
      if (part.startsWith("curves-")) page.drawers[part](data) // now there are models to draw them
    }
    page.begin_network()
    link.begin()
    Bokeh.documents[0].on_event("connection_lost", lost)
  }

  /** The server went away under the open page: wait for it, then begin anew. */
  async function lost() {
    if (page.waiting) return
    page.waiting = true
    page.draw("header", {...page.parts.header, kind: "gone", state: "the viewer's server is gone; waiting for it"})
    // A file of Bokeh's, not the page: asking for that would make the new server build one.
    const probe = document.querySelector('script[src*="/static/js/bokeh"]').src
    while (!await answers(probe)) await new Promise((done) => setTimeout(done, 1000))
    location.reload()
  }

  async function answers(url) {
    try {
      return (await fetch(url, {method: "HEAD", cache: "no-store"})).ok
    } catch (error) {
      if (error instanceof TypeError) return false // not reachable yet
      throw error
    }
  }
})()
