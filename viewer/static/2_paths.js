/* Draws the paths between the layers, in a worker where there is one (see 1_workers.js). The functions here know nothing
 * but what they are told:
 *
 *   width, height (px), ratio (device pixels per px), box     [x, y, width, height] of the plot
 *   x, y, x1, y1                  where each path begins and ends
 *   zoom, middle, scale           how far the plot is zoomed in, its middle from above (px), factor of all widths
 *   weight, mark                  of each path: 0 to 1; 1 of the chosen node, 2 staged
 *   light                         whether the page is
 *   whole                         whether more than the weights is new
 *   left                          infinite: how many frames it takes is for the drawing to say
 *
 * New weights come all the time, and stroking thousands of paths takes longer than a frame. So these are drawn a strip a
 * frame, from left to right: nothing else that is drawn at that time has to wait for them. */
(function () {
  "use strict"
  const page = window.revacnn
  const WIDTHS = 10 // as many strokes as there are widths, not as there are paths
  const STRIP = 300 // so many paths a frame
  const MARKS = {light: [null, "#0c4a6e", "#c81e43"], dark: [null, "#e0f2fe", "#f43f5e"]}

  /** A long path bends towards the middle of the network, past the columns between its ends. */
  function curve(ctx, q, i) {
    const a = q.x[i], b = q.y[i], c = q.x1[i], d = q.y1[i]
    ctx.moveTo(a, b)
    if (c - a < 110 * q.zoom) {
      const h = (c - a) * 0.5
      ctx.bezierCurveTo(a + h, b, c - h, d, c, d)
      return
    }
    const m = (a + c) / 2, waist = q.middle + ((b + d) / 2 - q.middle) * 0.84, h = (c - a) * 0.24
    ctx.bezierCurveTo(a + h, b, m - h, waist, m, waist)
    ctx.bezierCurveTo(m + h, waist, c - h, d, c, d)
  }

  /** Those without a mark, the thinnest first. The marked ones are left over. Only those that reach into the strip are
   * stroked, but always the same ones with each other: where they cross, they look the same in every strip. */
  function paint_by_weight(ctx, q, [left, right]) {
    const buckets = Array.from({length: WIDTHS}, () => []), marked = []
    for (let i = 0; i < q.weight.length; i++) {
      if (q.mark[i] > 0) marked.push(i)
      else buckets[Math.min(WIDTHS - 1, q.weight[i] * WIDTHS | 0)].push(i)
    }
    const dim = marked.length > 0 ? 0.55 : 1
    const light_touch = Math.min(1, Math.max(0.42, Math.sqrt(900 / q.weight.length)))
    buckets.forEach((bucket, k) => {
      const u = (k + 0.5) / WIDTHS
      ctx.lineWidth = (0.4 + 3.4 * u * u) * q.scale
      ctx.globalAlpha = (0.18 + 0.52 * u) * dim * light_touch
      ctx.strokeStyle = q.light
        ? `hsl(${212 - 8 * u},${50 + 30 * u}%,${60 - 26 * u}%)`
        : `hsl(${214 - 12 * u},${60 + 35 * u}%,${50 + 20 * u}%)`
      for (let from = 0; from < bucket.length; from += 24) { // long paths are slow to stroke
        ctx.beginPath()
        for (const i of bucket.slice(from, from + 24)) {
          if (q.x[i] < right && q.x1[i] > left) curve(ctx, q, i)
        }
        ctx.stroke()
      }
    })
    ctx.globalAlpha = 1
    return marked
  }

  /** The strip whose turn it is, as [left, right] in px. */
  function next_strip(q) {
    const strips = q.whole ? 1 : Math.max(1, Math.ceil(q.weight.length / STRIP))
    const edge = (k) => Math.round(q.width * q.ratio * k / strips) / q.ratio // of whole device pixels
    q.whole = false
    q.strip = (q.strip + 1 || 0) % strips // more may have been told amid the strips: on from there, all of them
    q.left = Math.min(q.left, strips) - 1
    return [edge(q.strip), edge(q.strip + 1)]
  }

  function clip(ctx, ...box) {
    ctx.beginPath()
    ctx.rect(...box)
    ctx.clip()
  }

  function draw_paths(ctx, q) {
    const strip = next_strip(q), [left, right] = strip
    ctx.save()
    clip(ctx, left, 0, right - left, q.height)
    ctx.clearRect(left, 0, right - left, q.height)
    clip(ctx, ...q.box)
    for (const i of paint_by_weight(ctx, q, strip)) {
      ctx.lineWidth = (1 + 3.4 * q.weight[i]) * q.scale
      ctx.strokeStyle = MARKS[q.light ? "light" : "dark"][q.mark[i]]
      ctx.beginPath()
      curve(ctx, q, i)
      ctx.stroke()
    }
    ctx.restore()
    return q.left > 0
  }

  page.Paths = class extends page.Drawing {
    constructor(canvas) {
      super(canvas, draw_paths, [curve, paint_by_weight, next_strip, clip], {WIDTHS, STRIP, MARKS})
    }
  }
})()
