/** Measures for how long the server has been silent, without mistaking a busy or sleeping browser for a silent server. */

const MAX_STEP_MS = 500

/**
 * Call `check` at an even pace and `reset` with every message. A check that comes late counts no more than `MAX_STEP_MS`:
 * messages wait as long as the check did, and are read before the next one. Before the first message, nothing is known.
 */
export class SilenceMeter {
  /** @param {number} limit ms without a message, after which the server counts as silent */
  constructor(limit) {
    this.limit = limit
    this.silence = 0
    this.checked = NaN
    this.isStarted = false
  }

  reset() {
    this.silence = 0
    this.isStarted = true
  }

  /**
   * @param {number} now ms
   * @param {boolean} isVisible a hidden page is sent nothing, and its timers are slowed down
   * @returns {boolean} whether the server is silent
   */
  check(now, isVisible) {
    const step = Math.min(MAX_STEP_MS, Math.max(0, now - this.checked || 0))
    this.checked = now
    this.silence = isVisible && this.isStarted ? this.silence + step : 0
    return this.silence >= this.limit
  }
}
