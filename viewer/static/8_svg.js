/* A view as SVG: the same thumbnails and borders as on the screen, and a label for each filter. */
(function () {
  "use strict"
  const page = window.revacnn
  const HEAD = 40, LEAST_LABELLED = 17 // px: of the head, of a thumbnail that has room for its number
  const ENLARGED = 2 // so much larger than on the screen does it open
  const METHODS = {tsne: "t-SNE", umap: "UMAP", pca: "PCA"}

  const escaped = (text) => String(text).replace(/[&<>"]/g, (sign) => ({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"})[sign])
  const px = (value) => String(Math.round(100 * value) / 100)
  const element = (name, attributes, ...children) => {
    const written = Object.entries(attributes).map(([key, value]) => ` ${key}="${escaped(value)}"`).join("")
    return children.length ? `<${name}${written}>${children.join("")}</${name}>` : `<${name}${written}/>`
  }

  /** The picture of filter i as a PNG of its own. */
  function picture(view, i, sheet) {
    const [x, y, w, h] = view.source(i), ctx = sheet.getContext("2d")
    sheet.width = w
    sheet.height = h
    ctx.drawImage(view.tiles.canvas, x, y, w, h, 0, 0, w, h)
    return sheet.toDataURL("image/png")
  }

  function thumbnail(view, {i, at, side, mine}, sheet) {
    const [x, y, width, height] = view.box(at, side), border = view.border(i, mine), index = view.data.indices[i]
    const fuzzy = view.smooth() ? "" : "image-rendering: optimizeSpeed; image-rendering: pixelated"
    const parts = [
      element("title", {}, escaped([`filter ${index}`, view.odd_word(view.odd[i]), `mean |∇| ${view.values[2 * i].toPrecision(3)}`,
        `Σ activation ${view.values[2 * i + 1].toPrecision(3)}`].filter(Boolean).join(" · "))),
      element("image", {x: px(x), y: px(y), width: px(width), height: px(height), preserveAspectRatio: "none",
        href: picture(view, i, sheet), ...(fuzzy && {style: fuzzy})}),
      element("rect", {x: px(x - 0.5), y: px(y - 0.5), width: px(width + 1), height: px(height + 1),
        fill: border.removed ? border.colour : "none", "fill-opacity": 0.35, stroke: border.colour, "stroke-width": border.width}),
    ]
    if (side >= LEAST_LABELLED) {
      parts.push(element("text", {class: "number", x: px(x + width - 1.5), y: px(y + height - 2), "text-anchor": "end"}, index))
    }
    return element("g", {"data-filter": index, "data-id": view.ids[i]}, ...parts)
  }

  function head(view, colour) {
    const how = view.name == "maps" ? "" : METHODS[page.parts.panel?.method] ?? ""
    const about = [`${view.n} filters`, how, `batch ${view.data.step}`].filter(Boolean).join(" · ")
    return element("text", {x: 10, y: 17, fill: colour("--text"), "font-size": 12, "font-weight": 600}, escaped(`${view.data.layer} · ${view.data.title}`)) +
      element("text", {x: 10, y: 31, fill: colour("--muted"), "font-size": 10}, escaped(about))
  }

  /** The line above the filters that stand aside, and why they do. */
  function aside(view, width, height, colour) {
    if (!view.aside()) return ""
    return element("line", {x1: 4, x2: width - 4, y1: height - 40.5, y2: height - 40.5, stroke: colour("--line")}) +
      element("text", {x: width - 6, y: height - 30, "text-anchor": "end", fill: colour("--muted"), "font-size": 10}, escaped(view.aside_words()))
  }

  /** What a view shows now, as the text of an SVG file that needs nothing else. */
  page.svg = (view) => {
    const [width, height] = view.size(), style = getComputedStyle(document.documentElement), sheet = document.createElement("canvas")
    const colour = (name) => style.getPropertyValue(name).trim()
    const items = view.items(view.positions()).filter(({at: [x, y], side}) =>
      x > -side && y > -side && x < width + side && y < height + side)
    return `<?xml version="1.0" encoding="UTF-8"?>\n` + element("svg",
      {xmlns: "http://www.w3.org/2000/svg", width: ENLARGED * width, height: ENLARGED * (height + HEAD), viewBox: `0 0 ${width} ${height + HEAD}`, "font-family": colour("--font")},
      element("style", {}, ".number { font-size: 7px; fill: #fff; stroke: #000; stroke-opacity: .6; stroke-width: 1.6px; paint-order: stroke }"),
      element("clipPath", {id: "view"}, element("rect", {width, height})),
      element("rect", {width, height: height + HEAD, fill: colour("--card")}),
      head(view, colour),
      element("g", {transform: `translate(0 ${HEAD})`, "clip-path": "url(#view)"},
        aside(view, width, height, colour), ...items.map((item) => thumbnail(view, item, sheet))),
    ) + "\n"
  }
})()
