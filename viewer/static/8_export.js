/* What a view shows, to keep: a picture, or a table. */
(function () {
  "use strict"
  const page = window.revacnn
  const {make, views} = page

  function save(blob, name) {
    const link = make("a", {href: URL.createObjectURL(blob), download: name})
    link.click()
    setTimeout(() => URL.revokeObjectURL(link.href), 1000)
  }

  /** A view as a picture, on the ground of the page, in twice the screen's resolution. */
  function save_picture(view) {
    const [width, height] = view.size(), ratio = 2 * devicePixelRatio
    const sheet = make("canvas", {width: width * ratio, height: height * ratio}), ctx = sheet.getContext("2d")
    const screen = {canvas: view.canvas}
    view.canvas = {clientWidth: width, clientHeight: height, width: width * ratio, height: height * ratio}
    view.paint(ctx, ratio)
    view.canvas = screen.canvas
    ctx.setTransform(1, 0, 0, 1, 0, 0)
    ctx.globalCompositeOperation = "destination-over"
    ctx.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--card")
    ctx.fillRect(0, 0, sheet.width, sheet.height)
    sheet.toBlob((blob) => save(blob, `${file_name(view)}.png`))
  }

  const file_name = (view) => `${view.data.layer}-${view.name}-step${view.data.step}`

  /** What a view shows, as a table. */
  page.table = (view) => {
    const lines = ["filter,id,x,y,odd,mean_abs_gradient,activation"]
    view.ids.forEach((id, i) => lines.push([view.data.indices[i], id, view.places[2 * i], view.places[2 * i + 1],
      view.odd_word(view.odd[i]), view.values[2 * i], view.values[2 * i + 1]].join(",")))
    return lines.join("\n") + "\n"
  }

  addEventListener("DOMContentLoaded", () => {
    for (const button of document.querySelectorAll("button[data-save]")) {
      button.addEventListener("click", () => {
        const view = views[button.closest("[data-view]").dataset.view]
        if (view == null || !view.n) return
        if (button.dataset.save == "png") save_picture(view)
        else if (button.dataset.save == "svg") save(new Blob([page.svg(view)], {type: "image/svg+xml"}), `${file_name(view)}.svg`)
        else save(new Blob([page.table(view)], {type: "text/csv"}), `${file_name(view)}.csv`)
      })
    }
  })
})()
