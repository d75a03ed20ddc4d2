/* Draws the nodes of the network, in a worker where there is one (see 1_workers.js). The functions here know nothing
 * but what they are told:
 *
 *   width, height (px), ratio (device pixels per px), zoom
 *   x, y, size, bar, phase        of each node, at rest
 *   tween                         {x, y, size, gone}: where they come from (NaN: they are new), and [x, y, size] of
 *                                 those that are no more
 *   amp, state                    of each node: how strongly it moves, and what it is
 *   theme, motion, chosen, hovered, also, company */
(function () {
  "use strict"
  const page = window.revacnn

  const STATE = {normal: 0, dead: 1, fresh: 2, staged: 3, together: 4, frozen: 5, absent: 6}
  const STEPS = 24, TWEEN_MS = 450

  function ease(t) {
    return 1 - (1 - t) ** 3
  }

  /** How much of a tween is over, 0 to 1: it begins with the first frame that shows it. */
  function progress(tween, now) {
    tween.start ??= now
    return Math.min(1, (now - tween.start) / TWEEN_MS)
  }

  /** Path of a dot, or of a bar. */
  function outline(ctx, x, y, size, bar) {
    if (bar > 0) ctx.rect(x - bar / 2, y - size / 2, bar, size)
    else {
      ctx.moveTo(x + size / 2, y)
      ctx.arc(x, y, size / 2, 0, 2 * Math.PI)
    }
  }

  /** Positions and sizes of this moment; half-way between two layouts during a tween. */
  function places({x, y, size, tween}, now) {
    const X = x.slice(), Y = y.slice(), S = size.slice()
    if (tween == null) return [X, Y, S]
    const t = ease(progress(tween, now))
    for (let i = 0; i < X.length; i++) {
      if (isNaN(tween.x[i])) {
        S[i] *= t
        continue
      }
      X[i] = tween.x[i] + (X[i] - tween.x[i]) * t
      Y[i] = tween.y[i] + (Y[i] - tween.y[i]) * t
      S[i] = tween.size[i] + (S[i] - tween.size[i]) * t
    }
    return [X, Y, S]
  }

  function jitter({phase, bar, amp, motion}, now, X, Y, S) {
    if (motion == 0) return
    const t = now / 1000
    for (let i = 0; i < X.length; i++) {
      const p = phase[i]
      const wide = bar[i] > 0 ? Math.min(6, 0.4 * bar[i]) : Math.max(1.2, S[i] * 0.375)
      const reach = 0.62 * motion * amp[i] * wide
      X[i] += reach * (Math.sin(23 * t + p) + 0.6 * Math.sin(37 * t + 2.3 * p))
      if (bar[i] == 0) Y[i] += reach * (Math.cos(27 * t + 1.7 * p) + 0.6 * Math.sin(41 * t + p))
    }
  }

  /** Those that are only as they move, by colour. */
  function paint_normal(ctx, q, X, Y, S) {
    const buckets = Array.from({length: STEPS}, () => []), special = []
    for (let i = 0; i < X.length; i++) {
      if (q.state[i] == STATE.normal) buckets[Math.min(STEPS - 1, q.amp[i] * STEPS | 0)].push(i)
      else special.push(i)
    }
    buckets.forEach((bucket, k) => {
      if (bucket.length == 0) return
      ctx.fillStyle = q.theme.colours[k]
      ctx.beginPath()
      for (const i of bucket) {
        const size = S[i] * q.zoom, bar = q.bar[i] * q.zoom
        if (bar > 0) ctx.fillRect(X[i] - bar / 2, Y[i] - size / 2, bar, size) // much faster than in a path
        else outline(ctx, X[i], Y[i], size, 0)
      }
      ctx.fill()
    })
    return special
  }

  function paint_special(ctx, {theme, motion}, now, state, x, y, size, bar, amp) {
    if (state == STATE.absent) return
    ctx.beginPath()
    if (state == STATE.dead || state == STATE.frozen) {
      outline(ctx, x, y, Math.max(1.5, size - 1.2), Math.max(0, bar - 1.2))
      ctx.lineWidth = 1.2
      ctx.strokeStyle = state == STATE.dead ? theme.dead : theme.frozen
      if (state == STATE.frozen) {
        ctx.fillStyle = theme.colours[Math.min(STEPS - 1, amp * STEPS | 0)]
        ctx.fill()
      }
      ctx.stroke()
      return
    }
    const pulse = motion > 0 ? 0.5 + 0.5 * Math.sin(now / 1000 * 5) : 0.6
    const grow = state == STATE.together ? 0 : 1.5 + 1.5 * pulse
    outline(ctx, x, y, size + grow, bar > 0 ? bar + 2 * grow : 0)
    ctx.fillStyle = ctx.strokeStyle = state == STATE.fresh ? theme.fresh : theme.staged
    ctx.lineWidth = 1.4
    ctx.globalAlpha = state == STATE.together ? 0.25 + 0.2 * pulse : 0.45 + 0.45 * pulse
    ctx.fill()
    ctx.globalAlpha = 1
    ctx.stroke()
  }

  /** What was removed shrinks away. */
  function paint_gone(ctx, {theme, tween, zoom}, now) {
    const t = progress(tween, now)
    if (t == 1) return
    ctx.globalAlpha = 1 - t
    ctx.fillStyle = theme.staged
    ctx.beginPath()
    for (const [x, y, size] of tween.gone) outline(ctx, x, y, Math.min(14, size) * (1 - ease(t)) * 1.5 * zoom, 0)
    ctx.fill()
    ctx.globalAlpha = 1
  }

  function paint_rings(ctx, {theme, bar, zoom, company, hovered, also, chosen}, X, Y, S) {
    const ring = (colour, width, i) => {
      if (i == null || i < 0 || i >= X.length) return
      ctx.beginPath()
      outline(ctx, X[i], Y[i], S[i] * zoom + (bar[i] > 0 ? 4 : 6), bar[i] > 0 ? bar[i] * zoom + 6 : 0)
      ctx.lineWidth = width
      ctx.strokeStyle = colour
      ctx.stroke()
    }
    for (const i of company) ring(theme.hover, 1, i)
    ring(theme.hover, 1.5, hovered)
    for (const i of also) ring(theme.chosen, 1.2, i)
    ring(theme.chosen, 2, chosen)
  }

  /** Draws a frame; whether the next would look different. */
  function draw_nodes(ctx, q, now) {
    ctx.clearRect(0, 0, q.width, q.height)
    const [X, Y, S] = places(q, now)
    jitter(q, now, X, Y, S)
    for (const i of paint_normal(ctx, q, X, Y, S)) {
      paint_special(ctx, q, now, q.state[i], X[i], Y[i], S[i] * q.zoom, q.bar[i] * q.zoom, q.amp[i])
    }
    if (q.tween != null) {
      paint_gone(ctx, q, now)
      if (progress(q.tween, now) == 1) q.tween = null
    }
    paint_rings(ctx, q, X, Y, S)
    return q.motion > 0 || q.tween != null
  }

  const PARTS = [ease, progress, outline, places, jitter, paint_normal, paint_special, paint_gone, paint_rings]

  page.Nodes = class extends page.Drawing {
    constructor(canvas) {
      super(canvas, draw_nodes, PARTS, {STATE, STEPS, TWEEN_MS})
    }

    /** A tween is told once: nodes drawn anew on another canvas do not set out again. */
    tell(news) {
      super.tell(news)
      this.known.tween = null
    }
  }
})()
