/** Whose tokens are judged; docs/rejections.md has the table of differences. */
export type Profile = 'strict' | 'oidc' | 'entra'

/** The algorithms that keys can be bound to (RFC 7518, RFC 9864, RFC 9964). */
export type Algorithm =
  'ES256' | 'ES384' | 'Ed25519' | 'RS256' | 'PS256' | 'ML-DSA-44' | 'ML-DSA-65' | 'ML-DSA-87'

/** What is done with what the log, or the evidence about a signer, says. */
export type Policy = 'off' | 'report' | 'require'

/**
 * A JWK Set (RFC 7517) as it was served, or parsed. Text is judged more strictly: a repeated member
 * shows.
 */
export type KeySet = string | { keys: readonly object[]; [member: string]: unknown }

/** What a relying party demands, and how it gets what it needs for that. */
export interface ValidatorOptions {
  /**
   * The issuer's URL, or several. `iss` and the key's `issuer` must both equal the one whose key
   * set holds the key, octet by octet.
   */
  issuer: string | readonly string[]
  /** The relying party's own name, or several; one of them must be in `aud`, octet by octet. */
  audience: string | readonly string[]
  /** Default: `strict`, for Chancery's tokens. */
  profile?: Profile
  /**
   * The JWK Set, for several issuers an object from issuer to set. It stays as it is; nothing is
   * fetched. Default: found by discovery.
   */
  jwks?: KeySet | Readonly<Record<string, KeySet>>
  /** Where the JWK Set is, without discovery; for several issuers an object from issuer to URL. */
  jwksUri?: string | Readonly<Record<string, string>>
  /**
   * Where the issuer's metadata is, if not where the standards say; for several issuers an object
   * from issuer to URL.
   */
  metadataUri?: string | Readonly<Record<string, string>>
  /** Seconds of tolerance for `exp`, `nbf` and an `iat` in the future. Default: 30. */
  leeway?: number
  /**
   * The longest accepted time from `iat` to `exp` in seconds; null for no bound. Default: a day;
   * for `entra` 28 hours.
   */
  maxLifetime?: number | null
  /**
   * Media types of which the header's `typ` must be one. Default: `at+jwt`; beyond `strict` also
   * `JWT`.
   */
  acceptedTyp?: string | readonly string[]
  /** Whether a token may have no `typ`. Default: beyond `strict` it may. */
  allowMissingTyp?: boolean
  /**
   * Algorithms that are accepted. The key decides which one is used, so this only narrows. Default:
   * all.
   */
  algorithms?: Algorithm | readonly Algorithm[]
  /** Under `entra` the accepted tenants (`tid`). */
  tenants?: string | readonly string[]
  /** Whether a token may say `EdDSA` for an Ed25519 key. Default: false. */
  acceptEddsa?: boolean
  /** Whether a token must be in the log of its key's signer. Default: `off`. */
  log?: Policy
  /**
   * How a token is found in its log: by the address in its `jti`, or by digest, for tokens of
   * Kubernetes (with profile `oidc`). Default: `address`.
   */
  logLookup?: 'address' | 'digest'
  /**
   * Where logs are: a URL or a folder that ends before `checkpoint`; `{log}` stands for a log's id.
   * Default: where the issuer's metadata says.
   */
  logAt?: string
  /** Whether there must be evidence about the key's signer. Default: `off`. */
  attestation?: Policy
  /**
   * The trust anchor: C2SP verifier keys, one a line. Only keys that these logs announced are
   * believed.
   */
  anchor?: string
  /**
   * Verified tokens to remember. Time, key and policy are judged afresh on every call. Default: 0.
   */
  cache?: number
  /** Whether `http:` URLs beyond this machine are fetched. Default: false. */
  allowPlainHttp?: boolean
  /** Certificates in PEM that HTTPS servers must chain to, in place of the system's. */
  rootCertificates?: string
  /** Limits of fetching and keeping. */
  bounds?: Bounds
  /**
   * Hears of accepted and rejected tokens against which their log speaks: under `report` all but
   * `in_log`, under `require` those that are missing or forged. Default: `process.emitWarning`.
   */
  onFinding?: (finding: Finding) => void
}

/** Limits of fetching and keeping. Times are in seconds, and may have fractions. */
export interface Bounds {
  /**
   * The shortest time for which a key set counts as fresh, whatever its publisher says. Default: 5.
   */
  minAge?: number
  /** The longest time for which a key set counts as fresh. Default: 3,600. */
  maxAge?: number
  /** How long a key set is fresh whose publisher does not say. Default: 300. */
  defaultAge?: number
  /** The least time between two requests for one key set. Default: 5. */
  coolDown?: number
  /** How long the last good key set is used after it stopped being fresh. Default: 3,600. */
  keep?: number
  /** The longest time between two attempts while the publisher fails. Default: 60. */
  retryAtMost?: number
  /** The whole of one refresh, and each single object of a log. Default: 10. */
  fetchTimeout?: number
  /** Connecting, TLS included. Default: 5. */
  connectTimeout?: number
  /** Calls that may wait for one refresh; further ones are rejected at once. Default: 1,024. */
  waiting?: number
  /**
   * Within what time after its `iat` a token's entry must be published, in whole seconds. Default:
   * 10.
   */
  publishWithin?: number
  /** How long a log's checkpoint is used again. Default: 1. */
  checkpointAge?: number
  /** Bytes of tiles and verifier keys that are kept. Default: 64 MiB. */
  logBytes?: number
  /**
   * Tokens that may wait for their look at the log under `report`; further ones are counted.
   * Default: 10,000.
   */
  reports?: number
}

/**
 * A token against which its log speaks. A verdict `forged` carries a proof that anybody can check.
 */
export interface Finding extends Accepted {
  log: LogVerdict
}

/**
 * The claims of a token: an ordinary object, the caller's own. Integers beyond 2^53 lose digits, as
 * with `JSON.parse`.
 */
export interface Claims {
  iss: string
  sub: string
  aud: string | string[]
  /** Seconds since 1970. */
  exp: number
  /** Seconds since 1970. */
  iat: number
  /** Seconds since 1970. */
  nbf?: number
  /** Always there under `strict`. */
  jti?: string
  /** Always there under `strict`. */
  client_id?: string
  /** Scope tokens with a space between them. */
  scope?: string
  [claim: string]: unknown
}

/** What a log says about a token. */
export type LogVerdict =
  | { verdict: 'in_log'; index: number }
  | { verdict: 'pending' }
  | { verdict: 'missing' }
  | {
      verdict: 'forged'
      index: number
      expected: string
      found: string
      vkey: string
      proof: string
    }
  | { verdict: 'unknown'; why: string }

/** A token that passed every check. */
export interface Accepted<C extends object = Claims> {
  claims: C
  /** The `kid` by which token and key set name the key. */
  kid: string
  /** The algorithm, which is the key's. */
  algorithm: Algorithm
  /** What the log says; null if it was not asked. */
  log: LogVerdict | null
}

/** One check of a judgement. */
export interface Step {
  /** Its stable name; docs/rejections.md lists them. */
  check: string
  /** Whether a failure rejects the token; what is only noted does not. */
  counts: boolean
  passed: boolean
  /** What was looked at, for a person; strangers' text in it is escaped and cut. */
  value: string
}

/** A judgement step by step. It ends at the first failure. */
export interface Explanation {
  steps: Step[]
  accepted: Accepted | null
  rejection: { code: RejectionCode; detail: string } | null
}

/** How the key set of an issuer is kept. */
export interface IssuerStatus {
  issuer: string
  /**
   * `given` for good; `none` yet; `fresh`; `stale`, and still used; `expired`, and not used any
   * more.
   */
  state: 'given' | 'none' | 'fresh' | 'stale' | 'expired'
  /** Keys that are believed now. */
  keys: number
  /** How long ago the request for this set began. */
  ageMs: number | null
  /** Fetches that ended. */
  fetches: number
  /** Those of them that failed. */
  failures: number
  /** Failures since the last success. */
  failuresInARow: number
  /** What the last fetch died of, if it failed. */
  lastError: string | null
  /**
   * Within what time a key is distrusted after its publisher took it out of the set, while the
   * publisher answers.
   */
  distrustsWithinMs: number | null
  /** The same while the publisher cannot be reached. */
  distrustsAtMostMs: number | null
}

/** How key sets are kept, and logs are read. */
export interface Status {
  issuers: IssuerStatus[]
  logs: {
    requests: number
    failures: number
    /** Bytes that are kept. */
    bytes: number
    /** Tokens that were not looked up, because too many were waiting. */
    droppedLookups: number
    /** Findings that were not told, because too many were waiting. */
    droppedFindings: number
  }
}

/** The codes of docs/rejections.md. A new rule gets a new code. */
export type RejectionCode =
  | 'oversize'
  | 'malformed_token'
  | 'duplicate_member'
  | 'critical_header'
  | 'embedded_key'
  | 'algorithm_none'
  | 'wrong_type'
  | 'missing_kid'
  | 'key_set_refused'
  | 'keys_unavailable'
  | 'unknown_key'
  | 'key_malformed'
  | 'key_not_announced'
  | 'key_without_window'
  | 'key_not_logged'
  | 'key_of_other_issuer'
  | 'key_left_set'
  | 'algorithm_not_of_key'
  | 'algorithm_not_accepted'
  | 'bad_signature'
  | 'missing_claim'
  | 'bad_claim'
  | 'wrong_issuer'
  | 'wrong_tenant'
  | 'wrong_audience'
  | 'issued_in_future'
  | 'outside_key_window'
  | 'lifetime_too_long'
  | 'expired'
  | 'not_yet_valid'
  | 'log_id_mismatch'
  | 'log_missing'
  | 'log_forged'
  | 'log_pending'
  | 'log_unknown'
  | 'attestation_unknown'

/** What docs/rejections.md says about each code. */
export const CODES: Readonly<
  Record<RejectionCode, Readonly<{ meaning: string; remedy: string; retryable: boolean }>>
>

/** A token was not accepted. */
export class Rejection extends Error {
  constructor(code: RejectionCode, detail: string)
  /** The stable code; programs may compare it. */
  readonly code: RejectionCode
  /**
   * What was seen, for the person who looks into it. It may repeat parts of the token, escaped and
   * cut, and does not belong into the answer to whoever sent the token.
   */
  readonly detail: string
  /** Whether the same token may become acceptable soon, without a change to it. */
  readonly retryable: boolean
  /** What the code means, in one sentence. */
  readonly meaning: string
  /** What to do about it. */
  readonly remedy: string
}

/**
 * Judges tokens. Keep one for as long as the program runs: it holds the key sets and keeps them
 * fresh.
 */
export class Validator {
  /**
   * Throws a `TypeError` for settings that are wrong or cannot be met, a `Rejection` for a `jwks`
   * that cannot be believed.
   */
  constructor(options: ValidatorOptions)
  /**
   * The token, if it passes every check. Rejects with a `Rejection`; a token that is not a string
   * is a `TypeError`. The event loop is never blocked by I/O.
   */
  validate<C extends object = Claims>(token: string): Promise<Accepted<C>>
  /**
   * As `validate`, at once. Rejects with `keys_unavailable` if something must be fetched first.
   * `now` is in seconds since 1970.
   */
  validateSync<C extends object = Claims>(token: string, options?: { now?: number }): Accepted<C>
  /** The judgement step by step, whatever its outcome. */
  explain(token: string): Promise<Explanation>
  /**
   * Waits for the first key set of every issuer. Rejects with a `Rejection` if one cannot be had.
   */
  ready(): Promise<void>
  /** How key sets are kept, for health checks and metrics. */
  status(): Status
}
