/** What is said of filters without activation: revacnn_lightning/diagnostics/dead_filters.py defines both words. */

import {config} from "./page_config.js"

export const DEAD_NOTE = `dead: no activation in the last ${config.dead_batches} batches`
export const SILENT_NOTE = "silent in this batch"
export const SILENT_IMAGE_NOTE = "silent on this image"
