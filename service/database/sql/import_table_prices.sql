create temporary table imported (
    line integer, symbol text, session_date date, close numeric, at timestamptz
) on commit drop
