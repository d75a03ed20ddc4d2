/* What the selected filter looks for: the images that excite it, and what in the input does. */
(function () {
  "use strict"
  const page = window.revacnn
  const {byId, make} = page
  const PLACES = 9, ENLARGED = 256 // px
  let data = {}

  /* ------------------------------------------------------------------------------- pictures */

  /** A picture, {pixels, colouring, frame: [h, w], at: [y, x], box, of: [h, w]}, on a canvas.
   *
   * `frame` is what it is a part of and `at` where it lies there, in pixels of the image: a filter
   * that looks beyond the border of an image sees nothing there. `box` is outlined. */
  function paint(canvas, picture, side) {
    const tiles = page.paint_atlas(picture.pixels, picture.colouring ?? "grey")
    if (tiles == null) return
    const [high, wide] = picture.frame, [h, w] = picture.of, scale = side / Math.max(high, wide)
    canvas.width = Math.max(1, Math.round(wide * scale))
    canvas.height = Math.max(1, Math.round(high * scale))
    const ctx = canvas.getContext("2d")
    ctx.imageSmoothingEnabled = scale * h / tiles.h < 2
    ctx.drawImage(tiles.canvas, 0, 0, tiles.w, tiles.h, picture.at[1] * scale, picture.at[0] * scale, w * scale, h * scale)
    if (picture.box) {
      const [top, left, bottom, right] = picture.box.map((edge) => edge * scale)
      ctx.lineWidth = Math.max(1.5, side / 90)
      ctx.strokeStyle = "rgb(0 0 0 / 65%)"
      ctx.strokeRect(left - 0.5, top - 0.5, right - left + 1, bottom - top + 1)
      ctx.strokeStyle = page.themes[document.documentElement.dataset.theme == "light" ? "light" : "dark"].chosen
      ctx.lineWidth /= 2
      ctx.strokeRect(left - 0.5, top - 0.5, right - left + 1, bottom - top + 1)
    }
  }

  /** Where a part that was cut by the image's border lies in the whole field. */
  function framed(box, sees) {
    const [top, left, bottom, right] = box, high = bottom - top, wide = right - left
    const frame = [Math.max(high, sees[0]), Math.max(wide, sees[1])]
    return {of: [high, wide], frame, at: [top == 0 ? frame[0] - high : 0, left == 0 ? frame[1] - wide : 0]}
  }

  /** A picture as large as its place allows, which is enlarged under the pointer. */
  function shown(picture, lines) {
    const canvas = make("canvas", {}), place = make("div", {class: "picture"}, canvas)
    const [high, wide] = picture.frame
    canvas.style.aspectRatio = `${wide} / ${high}`
    canvas.style.width = `min(100cqw, 100cqh * ${wide / high})`
    paint(canvas, picture, ENLARGED)
    place.addEventListener("pointermove", (event) => enlarge(event, picture, lines))
    return place
  }

  function enlarge(event, picture, lines) {
    const tip = byId("tip")
    if (tip.hidden || tip.dataset.of != "looks" || tip.picture != picture) {
      const canvas = make("canvas", {})
      paint(canvas, picture, ENLARGED)
      tip.dataset.of = "looks"
      tip.picture = picture
      tip.hidden = false
      tip.replaceChildren(...lines.slice(0, 1).map((line) => make("b", {}, line)), canvas, ...lines.slice(1).map((line) => make("small", {}, line)))
    }
    const left = event.clientX - 18 - tip.offsetWidth
    const y = Math.min(innerHeight - tip.offsetHeight - 8, Math.max(8, event.clientY - tip.offsetHeight / 2))
    tip.style.transform = `translate(${Math.round(left < 8 ? event.clientX + 18 : left)}px, ${Math.round(y)}px)`
  }

  function hide() {
    const tip = byId("tip")
    if (tip.dataset.of != "looks") return
    tip.hidden = true
    tip.picture = null
    delete tip.dataset.of
  }

  /* ---------------------------------------------------------------------------------- parts */

  function find(one) {
    const {box, size} = one, picture = {pixels: one.pixels, ...framed(box, data.sees)}
    const where = `rows ${box[0]}–${box[2] - 1}, columns ${box[1]}–${box[3] - 1} of ${size[0]}×${size[1]} pixels`
    return make("li", {}, shown(picture, [`response ${one.response}`, one.age, where]),
      make("div", {class: "words"}, make("b", {}, one.response), make("small", {}, one.age)))
  }

  function finds() {
    if (!data.finds?.length) return [make("li", {class: "none"}, data.no_finds || data.status || "")]
    const places = data.finds.map(find)
    while (places.length < PLACES) places.push(make("li", {}))
    return places
  }

  const figure = (caption, picture, ...lines) =>
    make("figure", {}, shown(picture, [caption, ...lines]), make("figcaption", {}, caption))

  function reasons() {
    if (!data.image?.shape?.[0]) return data.refused ? [make("div", {class: "instead"}, data.refused)] : []
    const whole = {pixels: data.image, frame: data.size, of: data.size, at: [0, 0]}
    const part = framed(data.box, data.sees)
    const figures = [figure("input", data.response ? {...whole, box: data.box} : whole, data.title)]
    if (!data.part?.shape?.[0]) return [...figures, make("div", {class: "instead"}, data.refused)]
    figures.push(figure(`response ${data.response}`, {pixels: data.part, ...part}, "what the filter sees where it responds most"))
    if (data.refused) figures.push(make("div", {class: "instead"}, sentence(`It cannot be told what here excites the filter: ${data.refused}`)))
    else if (data.silent) figures.push(make("div", {class: "instead"}, "This image does not excite the filter."))
    else {
      for (const [name, words] of [["deconvolution", "deconvolution"], ["guided", "guided backprop"]]) {
        figures.push(figure(words, {pixels: data[name], colouring: "diverging", ...part}, "what in it excites the filter; nothing where it is even"))
      }
    }
    return figures
  }

  const sentence = (text) => /[.!?]$/.test(text) ? text : `${text}.`

  page.drawers.looks = (news) => {
    data = news
    if (!data.finds) hide()
    byId("finds-facts").textContent = byId("finds-facts").title = data.finds?.length ? data.facts : ""
    byId("finds").replaceChildren(...finds())
    byId("looks-title").textContent = [data.title, data.busy ? "the next one is on its way" : ""].filter(Boolean).join(" · ")
    byId("reasons").replaceChildren(...reasons())
    byId("looks-why").textContent = data.finds ? data.status : ""
  }

  addEventListener("DOMContentLoaded", () => {
    const pane = document.querySelector(".pane.looks") // pictures are replaced under the pointer
    pane.addEventListener("pointermove", (event) => event.target.closest(".picture") ?? hide())
    pane.addEventListener("pointerleave", hide)
    for (const button of document.querySelectorAll("button[data-image]")) {
      const by = button.dataset.image == "batch" ? {by: "batch"} : {dx: Number(button.dataset.image)}
      button.addEventListener("click", () => page.send("image", by))
    }
  })
})()
