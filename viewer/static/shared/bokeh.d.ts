/** The part of BokehJS's public interface that the page uses. */

interface BokehModel {
  id: string
  name: string | null
}

interface BokehDataSource extends BokehModel {
  data: Record<string, ArrayLike<unknown>>
}

interface BokehTool extends BokehModel {
  type: string
}

interface BokehActionTool extends BokehTool {
  do: {emit(argument?: unknown): void}
}

interface BokehPlot extends BokehModel {
  toolbar: {tools: BokehTool[], active_drag: BokehTool | null, active_scroll: BokehTool | null}
  reset: {emit(): void}
}

interface BokehView {
  export(type: "png", hidpi: boolean): {canvas: HTMLCanvasElement}
}

interface BokehDocument {
  get_model_by_name(name: string): BokehModel | null
  on_event(name: "connection_lost", callback: () => void): void
}

declare const Bokeh: {
  documents: BokehDocument[]
  index: {find_one_by_id(id: string): BokehView | null}
  /** The classes of models by name. */
  Models: Record<string, {prototype: Record<string, unknown>}>
}
